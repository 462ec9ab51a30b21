//! GBNF, llama.cpp's grammar format, as Lark.

use super::error::ConstraintError;
use crate::token::TokenId;

/// The grammar as Lark. `control` finds control tokens by text.
pub(super) fn to_lark(
    _source: &str,
    _control: impl Fn(&str) -> Option<TokenId>,
) -> Result<String, ConstraintError> {
    Err(ConstraintError::Internal("GBNF".into()))
}
