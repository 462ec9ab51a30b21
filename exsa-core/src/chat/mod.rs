//! Chat: renders messages into the text of a prompt with the model's chat template.
//!
//! A chat template is a Jinja program that comes with the model. [`ChatTemplate`] runs it with the semantics
//! of Hugging Face transformers (`apply_chat_template`), within limits, and reports the positions at which
//! control tokens must not be recognized, because the text came from a message:
//! [`Rendered::protected_offsets`].
//!
//! Templates need the feature `chat-template`, which is on by default. Without it, the types exist, but
//! [`ChatTemplate::parse`] fails with [`ChatTemplateError::Disabled`].
//!
//! With the feature `serde`, messages and options have the JSON format of OpenAI's API.

mod builtin;
mod content;
mod fallback;
mod fields;
mod json;
mod markers;
mod message;
mod options;
mod support;
mod template;
mod templates;

#[cfg(feature = "chat-template")]
mod depth;
#[cfg(feature = "chat-template")]
mod jinja;
#[cfg(feature = "chat-template")]
mod mapping;
#[cfg(feature = "chat-template")]
mod marked;
#[cfg(feature = "chat-template")]
mod python;
#[cfg(feature = "chat-template")]
mod repr;
#[cfg(feature = "chat-template")]
mod source;
#[cfg(feature = "chat-template")]
mod strftime;
#[cfg(feature = "chat-template")]
mod tojson;

#[cfg(feature = "serde")]
mod base64;
#[cfg(feature = "serde")]
mod serde;

#[cfg(not(feature = "chat-template"))]
#[path = "jinja_disabled.rs"]
mod jinja;

pub use content::{ContentPart, Media, MediaSource};
pub use fallback::ToolFallback;
pub use fields::ArgumentsForm;
pub use json::{JSON_BYTES_MAX, Json, JsonError};
pub use message::{Message, ToolCall};
pub use options::ChatOptions;
pub use support::{TemplateSupport, ThinkingSwitch};
pub use template::{ChatTemplate, ChatTemplateError, ControlTexts, ROLE_BYTES_MAX, TEMPLATE_BYTES_MAX};
pub use templates::{ChatTemplateSource, ChatTemplates};

use crate::tokenizer::EncodeOptions;

/// The text of a conversation, ready to be tokenized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text, with the control tokens that the template wrote. If the template writes BOS at the
    /// beginning, the prompt gets no second one.
    pub text: String,
    /// Byte offsets into `text`, ascending, that no recognized control token may contain: they lie within
    /// text that looks like a control token but came from a message.
    pub protected_offsets: Vec<usize>,
}

impl Rendered {
    /// The options to tokenize [`text`](Self::text) with: control tokens are recognized, except across
    /// protected offsets.
    pub fn encode_options(&self) -> EncodeOptions<'_> {
        EncodeOptions::default().parse_special(true).protected_offsets(&self.protected_offsets)
    }
}
