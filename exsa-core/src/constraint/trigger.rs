//! Triggers: where in an answer a grammar starts to apply.

use crate::token::TokenId;

/// Starts a grammar that is inactive before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// The first of these texts in the answer. They may spell control tokens.
    Text(Vec<String>),
    /// The first of these tokens in the answer.
    Token(Vec<TokenId>),
}

impl Trigger {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(vec![text.into()])
    }

    /// A token.
    pub fn token(token: TokenId) -> Self {
        Self::Token(vec![token])
    }
}

/// Whether a grammar describes the text of its trigger too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrammarStart {
    /// The grammar describes the answer from the trigger's start on, as in llama.cpp.
    #[default]
    TriggerStart,
    /// It describes the answer from the trigger's end on.
    TriggerEnd,
}
