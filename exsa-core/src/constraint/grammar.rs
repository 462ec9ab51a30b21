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
    /// JSON that is valid for a schema, with properties in the schema's order.
    JsonSchema(JsonSchema),
    /// A regular expression that matches the whole text.
    Regex(String),
    /// One of several texts.
    Choice(Vec<String>),
    /// A context-free grammar in llguidance's variant of Lark; the rule `start` is the text.
    Lark(String),
    /// A context-free grammar in llama.cpp's GBNF; the rule `root` is the text.
    Gbnf(String),
    /// Free text with tags.
    StructuralTags(StructuralTags),
}

/// A JSON schema as JSON text. It is read when a request is submitted.
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
    /// The place where the text is not JSON, or is nested too deeply.
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
    /// A value nested deeper than JSON text may be gives a schema that is refused.
    fn from(value: &Json) -> Self {
        // Writing such a value recurses as deeply as it is nested.
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
    /// A space behind each comma and colon, and nothing else. Names of properties and punctuation then need
    /// no forward pass of their own, and no model can go on with white space for ever.
    #[default]
    Fixed,
    /// Any, as the model likes.
    Any,
}
