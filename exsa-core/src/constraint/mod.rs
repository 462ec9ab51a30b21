//! Structured output: constraints on the text of an answer.
//!
//! A [`Constraint`] has a [`Grammar`]: a JSON schema, a regular expression, a list of choices, a context-free
//! grammar, or tags inside free text. Before every token, the tokens that the grammar does not allow are
//! masked, so that an answer that ends by itself matches the grammar. Where the grammar leaves one choice,
//! the text is tokenized as the model's tokenizer does it, and those tokens need no forward pass of their
//! own.
//!
//! ```
//! use exsa_core::constraint::Constraint;
//! use exsa_core::{Message, Request};
//!
//! let schema = r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#;
//! let request = Request::chat([Message::user("Where is the Eiffel tower?")])
//!     .constraint(Constraint::json_schema(schema));
//! # let _ = request;
//! ```
//!
//! A constraint is compiled by the thread that submits the request, with limits on size and work; a keyword
//! or a construct that is not supported is refused, never ignored. Grammars need the feature `constraints`;
//! without it, requests with a constraint are refused with [`ConstraintError::Disabled`].

#[cfg(feature = "constraints")]
mod canonical;
#[cfg(feature = "constraints")]
mod compiled;
#[cfg(feature = "constraints")]
mod compiler;
#[cfg(not(feature = "constraints"))]
mod disabled;
#[cfg(feature = "constraints")]
mod environment;
mod error;
#[cfg(feature = "constraints")]
mod gbnf;
mod grammar;
#[cfg(feature = "constraints")]
mod guard;
#[cfg(feature = "constraints")]
mod lark;
#[cfg(feature = "constraints")]
mod limits;
#[cfg(feature = "constraints")]
mod matcher;
#[cfg(all(feature = "constraints", feature = "tool-parsers"))]
mod plain_string;
#[cfg(feature = "tool-parsers")]
pub(crate) mod reference;
#[cfg(feature = "constraints")]
mod schema;
#[cfg(feature = "constraints")]
mod search;
#[cfg(feature = "constraints")]
mod source;
#[cfg(feature = "constraints")]
mod state;
mod tags;
#[cfg(feature = "constraints")]
mod text_masks;
mod trigger;
#[cfg(feature = "serde")]
pub(crate) mod wire;

#[cfg(feature = "constraints")]
pub use compiled::Compiled;
#[cfg(feature = "constraints")]
pub use compiler::Compiler;
#[cfg(not(feature = "constraints"))]
pub(crate) use disabled::{Allowed, Compiler, ConstraintState};
pub use error::ConstraintError;
pub use grammar::{Grammar, JsonSchema, JsonWhitespace};
#[cfg(all(feature = "constraints", feature = "tool-parsers"))]
pub(crate) use plain_string::PlainString;
#[cfg(all(feature = "constraints", feature = "tool-parsers"))]
pub(crate) use source::checked_json;
#[cfg(feature = "constraints")]
pub use state::{Allowed, ConstraintState};
pub use tags::{StructuralTag, StructuralTags};
pub use trigger::{GrammarStart, Trigger};

/// Restricts the text of an answer to a [`Grammar`].
///
/// ```
/// use exsa_core::constraint::{Constraint, Trigger};
///
/// let colour = Constraint::choice(["red", "green", "blue"]);
/// let call = Constraint::json_object().trigger(Trigger::text("<tool_call>"));
/// # let _ = (colour, call);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Constraint {
    /// The texts that are allowed.
    pub grammar: Grammar,
    /// The grammar applies from the first trigger in the answer on; without one, from the answer's start.
    pub trigger: Option<Trigger>,
    /// Whether the grammar describes the text of the trigger too.
    pub grammar_start: GrammarStart,
    /// Text at the end of a reasoning part. The constraint, and the search for its trigger, start after the
    /// first occurrence in the answer. Unless there is a trigger, the answer cannot end before.
    pub reasoning_end: Option<String>,
    /// White space between the tokens of JSON.
    pub whitespace: JsonWhitespace,
    /// Whether Lark source is Exsa's own, with schemas that were checked.
    pub(crate) trusted: bool,
}

impl Constraint {
    /// Restricts the whole answer to `grammar`.
    pub fn new(grammar: Grammar) -> Self {
        Self {
            grammar,
            trigger: None,
            grammar_start: GrammarStart::default(),
            reasoning_end: None,
            whitespace: JsonWhitespace::default(),
            trusted: false,
        }
    }

    /// Any JSON object.
    pub fn json_object() -> Self {
        Self::new(Grammar::JsonObject)
    }

    /// JSON that is valid for `schema`, with properties in the schema's order.
    pub fn json_schema(schema: impl Into<JsonSchema>) -> Self {
        Self::new(Grammar::JsonSchema(schema.into()))
    }

    /// Text that a regular expression matches as a whole; syntax of the crate `regex`, without look-around,
    /// back-references and lazy repetition.
    pub fn regex(regex: impl Into<String>) -> Self {
        Self::new(Grammar::Regex(regex.into()))
    }

    /// One of several texts.
    pub fn choice<T: Into<String>>(choices: impl IntoIterator<Item = T>) -> Self {
        Self::new(Grammar::Choice(choices.into_iter().map(Into::into).collect()))
    }

    /// A grammar in llguidance's variant of Lark, with the rule `start`.
    pub fn lark(grammar: impl Into<String>) -> Self {
        Self::new(Grammar::Lark(grammar.into()))
    }

    /// A grammar in llama.cpp's GBNF, with the rule `root`.
    pub fn gbnf(grammar: impl Into<String>) -> Self {
        Self::new(Grammar::Gbnf(grammar.into()))
    }

    /// Free text with tags, whose contents have grammars of their own.
    pub fn structural_tags(tags: StructuralTags) -> Self {
        Self::new(Grammar::StructuralTags(tags))
    }

    /// Leaves the answer free until a trigger appears in it.
    #[must_use]
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = Some(trigger);
        self
    }

    /// Sets whether the grammar describes the text of the trigger too.
    #[must_use]
    pub fn grammar_start(mut self, start: GrammarStart) -> Self {
        self.grammar_start = start;
        self
    }

    /// Leaves the answer free up to the first occurrence of `end`, the text that closes a reasoning part.
    #[must_use]
    pub fn after_reasoning(mut self, end: impl Into<String>) -> Self {
        self.reasoning_end = Some(end.into());
        self
    }

    /// Sets the white space between the tokens of JSON.
    #[must_use]
    pub fn whitespace(mut self, whitespace: JsonWhitespace) -> Self {
        self.whitespace = whitespace;
        self
    }
}
