//! Errors of constraints.

/// Reason why a constraint is refused, or why an answer cannot continue under it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The crate was built without the feature `constraints`.
    #[error("constraints need the feature `constraints` of exsa-core")]
    Disabled,
    /// The grammar is malformed, contradictory, or uses an unsupported construct.
    #[error("{grammar}: {problem}")]
    Invalid {
        /// The kind of grammar: `JSON schema`, `regex`.
        grammar: &'static str,
        /// The problem, its position, and the allowed range if there is one.
        problem: String,
    },
    /// A JSON schema has an unsupported keyword.
    #[error("JSON schema, {path}: the keyword '{keyword}' is not supported")]
    Keyword {
        /// The keyword.
        keyword: String,
        /// JSON pointer to the schema with the keyword, starting with `#`.
        path: String,
    },
    /// The grammar exceeds a limit.
    #[error("{grammar}: it exceeds the limit of {max} {limit}")]
    Limit {
        /// The kind of grammar.
        grammar: &'static str,
        /// The limited quantity: `bytes`, `levels of nesting`.
        limit: &'static str,
        /// Its maximum.
        max: u64,
    },
    /// The constraint conflicts with another option of the request.
    #[error("a constraint cannot be combined with {0}")]
    Conflict(&'static str),
    /// A token of a resumed answer is not allowed by the grammar.
    #[error("token {index} of the answer so far does not match the grammar")]
    Replay {
        /// Index of the token in the answer.
        index: usize,
    },
    /// The grammar allows no token of the vocabulary.
    #[error("no token of the vocabulary can continue the answer according to the grammar")]
    NoToken,
    /// Matching the answer requires more work or memory than allowed.
    #[error("the grammar needs too much work for this answer: {0}")]
    Work(String),
    /// The grammar library failed.
    #[error("grammar: {0}")]
    Internal(String),
}
