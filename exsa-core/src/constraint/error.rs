//! Reasons why a constraint is refused, or an answer cannot go on under it.

/// Reason for refusing a constraint, or for the end of an answer that cannot go on under it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The crate was built without the feature `constraints`.
    #[error("constraints need the feature `constraints` of exsa-core")]
    Disabled,
    /// The grammar is not well formed, contradicts itself, or uses a construct that is not supported.
    #[error("{grammar}: {problem}")]
    Invalid {
        /// The kind of grammar: `JSON schema`, `regex`.
        grammar: &'static str,
        /// The problem, its place, and the allowed range where there is one.
        problem: String,
    },
    /// A JSON schema has a keyword that is not supported.
    #[error("JSON schema, {path}: the keyword '{keyword}' is not supported")]
    Keyword {
        /// The keyword.
        keyword: String,
        /// JSON pointer to the schema that has it, from `#`.
        path: String,
    },
    /// The grammar exceeds a limit.
    #[error("{grammar}: over the limit of {max} {limit}")]
    Limit {
        /// The kind of grammar.
        grammar: &'static str,
        /// The limited quantity: `bytes`, `levels of nesting`.
        limit: &'static str,
        /// Its maximum.
        max: u64,
    },
    /// Another setting of the request contradicts the constraint.
    #[error("a constraint cannot be combined with {0}")]
    Conflict(&'static str),
    /// A token of a resumed answer is not allowed by the grammar.
    #[error("token {index} of the answer so far does not match the grammar")]
    Replay {
        /// Index of the token in the answer.
        index: usize,
    },
    /// The grammar allows no token of the vocabulary.
    #[error("no token of the vocabulary continues the answer as the grammar demands")]
    NoToken,
    /// The answer needs more work or memory of the grammar than allowed.
    #[error("the grammar needs too much work for this answer: {0}")]
    Work(String),
    /// The grammar library failed.
    #[error("grammar: {0}")]
    Internal(String),
}
