//! Replacement of the Jinja engine without the feature `chat-template`: an uninhabited type.

use super::markers::Marking;
use super::{ChatOptions, ChatTemplateError, Json};

/// Steps of a rendering.
pub(super) const STEPS_MAX: u64 = 0;

#[derive(Debug)]
pub(super) enum Program {}

impl Program {
    pub(super) fn parse(_source: &str) -> Result<Self, ChatTemplateError> {
        Err(ChatTemplateError::Disabled)
    }

    pub(super) fn render(
        &self,
        _variables: Vec<(String, Json)>,
        _marking: Marking,
        _options: &ChatOptions,
        _steps_max: u64,
    ) -> Result<String, ChatTemplateError> {
        match *self {}
    }
}
