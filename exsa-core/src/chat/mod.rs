//! Chat: messages in, the text of a prompt out, as the model's chat template prescribes.
//!
//! A chat template is a Jinja program that comes with the model. [`ChatTemplate`] runs it with the semantics
//! of Hugging Face transformers (`apply_chat_template`), under limits, and tells where in the text control
//! tokens must not be recognised because a user wrote them: [`Rendered::protected_offsets`].
//!
//! Templates need the feature `chat-template`, on by default. Without it the types are there and
//! [`ChatTemplate::parse`] fails with [`ChatTemplateError::Disabled`].
//!
//! With the feature `serde`, messages and options are read and written in the shapes of OpenAI's API.

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

/// The text of a conversation, ready to be encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text, with the control tokens that the template wrote. It begins with BOS where the template puts
    /// it there, so that the prompt gets none beside it.
    pub text: String,
    /// Byte offsets into `text`, ascending, across which no control token may be recognised: they lie within
    /// what looks like one but came from a message.
    pub protected_offsets: Vec<usize>,
}

impl Rendered {
    /// The options to encode [`text`](Self::text) with: control tokens on, offsets protected.
    pub fn encode_options(&self) -> EncodeOptions<'_> {
        EncodeOptions::default().parse_special(true).protected_offsets(&self.protected_offsets)
    }
}
