//! Chat: messages in, the text of a prompt out, as the model's chat template prescribes.
//!
//! A chat template is a Jinja program that comes with the model. [`ChatTemplate`] runs it with the semantics of
//! Hugging Face transformers (`apply_chat_template`), under limits, and tells where in the text control
//! tokens must not be recognised because a user wrote them: [`Rendered::barriers`].
//!
//! Templates need the feature `chat-template`, on by default. Without it the types are there and
//! [`ChatTemplate::parse`] fails with [`ChatTemplateError::Disabled`].

mod barriers;
mod json;
mod template;

#[cfg(feature = "chat-template")]
mod depth;
#[cfg(feature = "chat-template")]
mod jinja;
#[cfg(feature = "chat-template")]
mod python;
#[cfg(feature = "chat-template")]
mod source;
#[cfg(feature = "chat-template")]
mod strftime;
#[cfg(feature = "chat-template")]
mod tojson;

#[cfg(not(feature = "chat-template"))]
#[path = "jinja_disabled.rs"]
mod jinja;

pub use json::{Json, JsonError};
pub use template::{ChatTemplate, ChatTemplateError, ControlTexts, ROLE_BYTES_MAX, TEMPLATE_BYTES_MAX};

use crate::tokenizer::EncodeOptions;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or another role that the template knows. ASCII letters,
    /// digits, `_`, `-` and `.`, up to 64 bytes: templates put it where control tokens stand.
    pub role: String,
    /// What is said.
    pub content: String,
    /// Further fields that a template may look at, by name: `tool_calls`, `tool_call_id`, `name`,
    /// `reasoning_content`. A field named `content` replaces the one above; one named `role` is
    /// refused.
    pub extra: BTreeMap<String, Json>,
}

impl Message {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), extra: BTreeMap::new() }
    }

    /// What the model is told about its task.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// The same message with a further field.
    pub fn with(mut self, field: impl Into<String>, value: Json) -> Self {
        self.extra.insert(field.into(), value);
        self
    }
}

/// How a conversation is rendered.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// Whether the text ends where the model's answer begins; `true` by default.
    pub add_generation_prompt: bool,
    /// Functions that the model may call, each a JSON schema as in OpenAI's API; none by default.
    pub tools: Vec<Json>,
    /// Further variables for the template, as `enable_thinking`. They are the host's own: what they hold may
    /// become control tokens.
    pub variables: BTreeMap<String, Json>,
    /// The time that a template reads by `strftime_now`, in UTC; `None`, the default, is the system's clock.
    pub now: Option<SystemTime>,
    /// Bytes that the text may have; 16 MiB by default.
    pub output_bytes_max: usize,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self {
            add_generation_prompt: true,
            tools: Vec::new(),
            variables: BTreeMap::new(),
            now: None,
            output_bytes_max: 16 << 20,
        }
    }
}

/// The text of a conversation, ready to be encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text, with the control tokens that the template wrote. It begins with BOS where the template puts it
    /// there, so that the prompt gets none beside it.
    pub text: String,
    /// Byte offsets into `text`, ascending, across which no control token may be recognised: they lie within
    /// what looks like one but came from a message.
    pub barriers: Vec<usize>,
}

impl Rendered {
    /// The options to encode [`text`](Self::text) with: control tokens on, barriers set.
    pub fn encode_options(&self) -> EncodeOptions<'_> {
        EncodeOptions { special: true, barriers: &self.barriers }
    }
}
