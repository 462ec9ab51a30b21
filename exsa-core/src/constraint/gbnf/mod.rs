//! GBNF, llama.cpp's grammar format, as Lark.
//!
//! GBNF describes characters; llguidance uses a lexer, which takes the longest lexeme. To reduce the effect
//! of lexeme boundaries, every non-recursive rule becomes a terminal, as does every run of such rules and
//! literals in a recursive rule.
//!
//! The format: <https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>.

mod emit;
mod parse;

use super::error::ConstraintError;
use crate::token::TokenId;

/// The grammar as Lark. `control` finds control tokens by text; `ends` are the tokens that end an answer.
pub(super) fn to_lark(
    source: &str,
    control: impl Fn(&str) -> Option<TokenId>,
    ends: &[TokenId],
) -> Result<String, ConstraintError> {
    emit::lark(&parse::Parser::new(source, &control).grammar()?, ends)
}

fn invalid(problem: String) -> ConstraintError {
    ConstraintError::Invalid { grammar: "GBNF grammar", problem }
}

fn limit(limit: &'static str, max: usize) -> ConstraintError {
    ConstraintError::Limit { grammar: "GBNF grammar", limit, max: max as u64 }
}
