//! In place of Jinja where the feature `chat-template` is off: a program that cannot exist.

use super::{ChatOptions, ChatTemplateError, ControlTexts, Message};

#[derive(Debug)]
pub(super) enum Program {}

impl Program {
    pub(super) fn parse(_source: &str) -> Result<Self, ChatTemplateError> {
        Err(ChatTemplateError::Disabled)
    }

    pub(super) fn render(
        &self,
        _messages: &[Message],
        _options: &ChatOptions,
        _texts: &ControlTexts,
    ) -> Result<String, ChatTemplateError> {
        match *self {}
    }
}
