//! Limits of requests that the server sets beside those of the engine.

use crate::error::ApiError;
use crate::options::ServerOptions;
use exsa_core::constraint::Grammar;
use exsa_core::{Prompt, Request};

/// Refuses a request over the limits that can be seen without its tokens.
///
/// # Errors
///
/// The limit that is exceeded.
pub(crate) fn check(request: &Request, options: &ServerOptions) -> Result<(), ApiError> {
    let answers = request.best_of.unwrap_or(request.n).max(request.n);
    if answers > options.answers_max {
        let field = if request.n > options.answers_max { "n" } else { "best_of" };
        let message = format!("{field}: {answers} answers, but at most {} are allowed", options.answers_max);
        return Err(ApiError::invalid(message).param(field));
    }
    if let (Prompt::Tokens(tokens), Some(limit)) = (&request.prompt, options.prompt_tokens_max) {
        check_prompt(tokens.len(), limit)?;
    }
    let max = options.schema_bytes_max;
    let too_large = |field: &str, bytes: usize| {
        let message = format!("{field}: {bytes} bytes, but at most {max} are allowed");
        Err(ApiError::invalid(message).param(field))
    };
    let grammar = request.constraint.as_ref().map_or(0, |constraint| grammar_bytes(&constraint.grammar));
    if grammar > max {
        return too_large("response_format", grammar);
    }
    let tools = request.chat.tools.iter().map(|tool| tool.to_string().len()).fold(0, usize::saturating_add);
    if tools > max {
        return too_large("tools", tools);
    }
    Ok(())
}

/// Refuses a prompt of more than `limit` tokens.
///
/// # Errors
///
/// Both numbers.
pub(crate) fn check_prompt(tokens: usize, limit: usize) -> Result<(), ApiError> {
    if tokens <= limit {
        return Ok(());
    }
    let message = format!("the prompt has {tokens} tokens, but at most {limit} are allowed");
    Err(ApiError::invalid(message).code("context_length_exceeded"))
}

/// Bytes of a grammar's source.
fn grammar_bytes(grammar: &Grammar) -> usize {
    match grammar {
        Grammar::JsonSchema(schema) => schema.as_str().len(),
        Grammar::Regex(text) | Grammar::Lark(text) | Grammar::Gbnf(text) => text.len(),
        Grammar::Choice(texts) => texts.iter().map(String::len).sum(),
        Grammar::StructuralTags(tags) => {
            let bytes = |tag: &exsa_core::constraint::StructuralTag| {
                tag.begin.len() + tag.end.len() + grammar_bytes(&tag.content)
            };
            tags.tags.iter().map(bytes).sum()
        }
        _ => 0,
    }
}
