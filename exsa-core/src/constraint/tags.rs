//! Structural tags: free text with parts that have their own grammars, such as tool calls.

use super::grammar::Grammar;

/// Free text in which a trigger begins a tag: a begin text, content with its own grammar, and an end text.
/// The texts may contain control tokens.
///
/// ```
/// use exsa_core::constraint::{Constraint, Grammar, StructuralTag, StructuralTags};
///
/// let schema = r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#;
/// let weather = StructuralTag::new("<function=weather>", Grammar::JsonSchema(schema.into()), "</function>");
/// let constraint = Constraint::structural_tags(StructuralTags::new(["<function="]).tag(weather));
/// # let _ = constraint;
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StructuralTags {
    /// Texts that begin a tag, and so never appear outside of tags. The begin text of every tag must start
    /// with one of them.
    pub triggers: Vec<String>,
    /// The tags.
    pub tags: Vec<StructuralTag>,
    /// Whether the answer starts with a tag, with no text before it.
    pub at_least_one: bool,
    /// Whether the answer ends with its first tag.
    pub stop_after_first: bool,
}

/// A part of an answer with its own grammar.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StructuralTag {
    /// Text before the content.
    pub begin: String,
    /// Grammar of the content.
    pub content: Grammar,
    /// Text after the content.
    pub end: String,
}

impl StructuralTag {
    /// Creates a tag.
    pub fn new(begin: impl Into<String>, content: Grammar, end: impl Into<String>) -> Self {
        Self { begin: begin.into(), content, end: end.into() }
    }
}

impl StructuralTags {
    /// Structural tags with these triggers and no tags yet.
    pub fn new<T: Into<String>>(triggers: impl IntoIterator<Item = T>) -> Self {
        Self { triggers: triggers.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: StructuralTag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Sets whether the answer starts with a tag.
    #[must_use]
    pub fn at_least_one(mut self, at_least_one: bool) -> Self {
        self.at_least_one = at_least_one;
        self
    }

    /// Sets whether the answer ends with its first tag.
    #[must_use]
    pub fn stop_after_first(mut self, stop: bool) -> Self {
        self.stop_after_first = stop;
        self
    }
}
