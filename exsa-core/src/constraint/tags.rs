//! Structural tags: free text with parts that have grammars of their own, as tool calls have.

use super::grammar::Grammar;

/// Free text in which a trigger begins a tag: a begin text, contents with a grammar of their own, and an end
/// text. The texts may spell control tokens.
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
    /// Texts that never appear outside of tags: each begins one. Every tag's begin must start with one of
    /// them.
    pub triggers: Vec<String>,
    /// The tags.
    pub tags: Vec<StructuralTag>,
    /// Whether the answer starts with a tag, with no text before it.
    pub at_least_one: bool,
    /// Whether the answer ends with its first tag.
    pub stop_after_first: bool,
}

/// A part of an answer with a grammar of its own.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StructuralTag {
    /// Text before the contents.
    pub begin: String,
    /// The contents.
    pub content: Grammar,
    /// Text after the contents.
    pub end: String,
}

impl StructuralTag {
    /// A tag.
    pub fn new(begin: impl Into<String>, content: Grammar, end: impl Into<String>) -> Self {
        Self { begin: begin.into(), content, end: end.into() }
    }
}

impl StructuralTags {
    /// No tags yet. Each trigger begins a tag.
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
