//! Refuses constraints on tool calls without the feature `constraints`.

use super::{GrammarOptions, ToolChoice, ToolFormat};
use crate::chat::Json;
use crate::constraint::{Constraint, ConstraintError};
use crate::tokenizer::Tokenizer;

/// The constraint on the tool calls of an answer; `None` if the choice allows no calls.
///
/// # Errors
///
/// The choice requires a constraint, but the feature `constraints` is off.
pub fn call_constraint(
    format: ToolFormat,
    tools: &[Json],
    choice: &ToolChoice,
    _options: GrammarOptions,
    _tokenizer: &dyn Tokenizer,
) -> Result<Option<Constraint>, ConstraintError> {
    match tools.is_empty() || *choice == ToolChoice::None || format == ToolFormat::None {
        true => Ok(None),
        false => Err(ConstraintError::Disabled),
    }
}
