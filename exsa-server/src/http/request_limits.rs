//! Limits on the content of one request.

use crate::http::error::ApiError;
use crate::options::ServerOptions;
use exsa_core::Request;
use exsa_core::constraint::Grammar;
use serde::Serialize;
use std::io::{self, Write};

/// Refuses a request that exceeds the limits of the options, before any work.
///
/// # Errors
///
/// 400, with the limit.
pub(crate) fn check(request: &Request, options: &ServerOptions) -> Result<(), ApiError> {
    let over = |param: &str, message: String| Err(ApiError::invalid(message).param(param).code("over_limit"));
    for (param, asked) in [("n", request.n), ("best_of", request.best_of.unwrap_or_default())] {
        if asked > options.n_max {
            return over(
                param,
                format!("{param}: {asked} answers, but {} at most are allowed", options.n_max),
            );
        }
    }
    let max = options.schema_bytes_max;
    if request.constraint.as_ref().is_some_and(|constraint| grammar_bytes(&constraint.grammar) > max) {
        return over(
            "response_format",
            format!("the schema or grammar has more than the {max} bytes allowed"),
        );
    }
    if !fits(&request.chat.tools, max) {
        return over("tools", format!("the tools have more than the {max} bytes allowed"));
    }
    Ok(())
}

/// Refuses a prompt of more than `max` tokens.
///
/// # Errors
///
/// 400, with both numbers.
pub(crate) fn check_prompt(tokens: usize, max: usize) -> Result<(), ApiError> {
    if tokens <= max {
        return Ok(());
    }
    let message = format!("the prompt has {tokens} tokens, but {max} at most are allowed");
    Err(ApiError::invalid(message).code("context_length_exceeded"))
}

/// Size of a grammar's source in bytes.
fn grammar_bytes(grammar: &Grammar) -> usize {
    match grammar {
        Grammar::JsonSchema(schema) => schema.as_str().len(),
        Grammar::Regex(source) | Grammar::Lark(source) | Grammar::Gbnf(source) => source.len(),
        Grammar::Choice(choices) => choices.iter().map(String::len).sum(),
        Grammar::StructuralTags(tags) => {
            let parts =
                tags.tags.iter().map(|tag| tag.begin.len() + grammar_bytes(&tag.content) + tag.end.len());
            parts.sum::<usize>() + tags.triggers.iter().map(String::len).sum::<usize>()
        }
        _ => 0,
    }
}

/// Returns whether a value takes at most `max` bytes as JSON.
fn fits(value: &impl Serialize, max: usize) -> bool {
    serde_json::to_writer(Budget(max), value).is_ok()
}

/// A writer that discards its input and fails after a number of bytes.
struct Budget(usize);

impl Write for Budget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
