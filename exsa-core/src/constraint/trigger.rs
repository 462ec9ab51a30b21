//! Triggers: the point in an answer from which a grammar applies.

use crate::token::TokenId;

/// Activates a grammar within an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// The first occurrence of one of these texts in the answer. They may contain control tokens.
    Text(Vec<String>),
    /// The first occurrence of one of these tokens in the answer.
    Token(Vec<TokenId>),
}

impl Trigger {
    /// A text as the trigger.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(vec![text.into()])
    }

    /// A token as the trigger.
    pub fn token(token: TokenId) -> Self {
        Self::Token(vec![token])
    }
}

/// Whether a grammar also describes the text of its trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrammarStart {
    /// The grammar describes the answer from the trigger's start on, as in llama.cpp.
    #[default]
    TriggerStart,
    /// The grammar describes the answer from the trigger's end on.
    TriggerEnd,
}
