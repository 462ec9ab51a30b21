//! The texts that a constraint allows.

use super::tags::StructuralTags;
use crate::chat::{Json, JsonError};
use std::sync::Arc;

/// The texts that a constraint allows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid for a schema, with properties in the order of the schema.
    JsonSchema(JsonSchema),
    /// A regular expression that matches the whole text.
    Regex(String),
    /// One of several texts.
    Choice(Vec<String>),
    /// A context-free grammar in llguidance's variant of Lark, with the start rule `start`.
    Lark(String),
    /// A context-free grammar in llama.cpp's GBNF, with the start rule `root`.
    Gbnf(String),
    /// Free text with tags.
    StructuralTags(StructuralTags),
}

/// A JSON schema as JSON text, which is parsed when a request is submitted.
///
/// ```
/// use exsa_core::chat::Json;
/// use exsa_core::constraint::JsonSchema;
///
/// let schema = JsonSchema::from(r#"{"type": "integer"}"#);
/// let value: Json = schema.as_str().parse()?;
/// assert_eq!(JsonSchema::from(&value).json()?, value);
/// # Ok::<(), exsa_core::chat::JsonError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JsonSchema(Arc<str>);

impl JsonSchema {
    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The schema as a value.
    ///
    /// # Errors
    ///
    /// The text is not valid JSON, or is nested too deeply; the error gives the position.
    pub fn json(&self) -> Result<Json, JsonError> {
        self.0.parse()
    }
}

impl From<&str> for JsonSchema {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for JsonSchema {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&Json> for JsonSchema {
    /// A value that is nested too deeply for JSON text results in a schema that is refused.
    fn from(value: &Json) -> Self {
        // Writing such a value would recurse to the depth of its nesting.
        if value.is_shallow() { Self(value.to_string().into()) } else { Self("[".repeat(100).into()) }
    }
}

impl From<Json> for JsonSchema {
    fn from(value: Json) -> Self {
        Self::from(&value)
    }
}

/// White space between the tokens of JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonWhitespace {
    /// One space after each comma and colon, and no other white space. Property names and punctuation then
    /// need no forward passes of their own, and a model cannot generate white space endlessly.
    #[default]
    Fixed,
    /// Any white space, chosen by the model.
    Any,
}
