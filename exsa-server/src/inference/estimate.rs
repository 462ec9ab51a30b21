//! Usage estimates, and prompt texts for the audit log.

use crate::inference::books::Estimate;
use crate::state::AppState;
use exsa_core::embed::EmbedInput;
use exsa_core::{Prompt, Request, RerankRequest};

/// Special tokens that may be added around a text.
const SPECIAL_TOKENS: usize = 4;

/// Estimates a request: its prompt in tokens by the model's tokenizer, or in bytes if there is none.
pub(crate) fn of_request(state: &AppState, request: &Request) -> Estimate {
    let prompt = match &request.prompt {
        Prompt::Tokens(tokens) => tokens.len(),
        Prompt::Text(text) => count(state, request).unwrap_or_else(|| of_text(text)),
        // A template adds an unknown number of tokens; requests that it refuses are refused at submission.
        _ => count(state, request).unwrap_or_else(|| of_text(&prompt_text(&request.prompt))),
    };
    let answers = request.best_of.unwrap_or(request.n).max(request.n).max(1);
    let output = request.max_tokens.map(|tokens| tokens.saturating_mul(answers) as u64);
    Estimate { prompt: prompt as u64, output }
}

fn count(state: &AppState, request: &Request) -> Option<usize> {
    state.generator.count_tokens(request).ok()
}

/// An upper bound: no token is shorter than a byte.
fn of_text(text: &str) -> usize {
    text.len() + SPECIAL_TOKENS
}

/// Estimates texts to embed.
pub(crate) fn of_texts(inputs: &[EmbedInput]) -> Estimate {
    let tokens = |input: &EmbedInput| match input {
        EmbedInput::Text(text) => of_text(text),
        EmbedInput::Tokens(tokens) => tokens.len(),
        other => format!("{other:?}").len(),
    };
    Estimate { prompt: inputs.iter().map(tokens).sum::<usize>() as u64, output: Some(0) }
}

/// Estimates documents to score: each is read with the query.
pub(crate) fn of_documents(request: &RerankRequest) -> Estimate {
    let query = of_text(&request.query);
    let tokens = request.documents.iter().map(|document| query.saturating_add(of_text(document)));
    Estimate { prompt: tokens.fold(0, usize::saturating_add) as u64, output: Some(0) }
}

/// Formats a prompt for the log: a text, or JSON.
pub(crate) fn prompt_text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(tokens) => serde_json::to_string(tokens).unwrap_or_default(),
        Prompt::Chat(messages) => serde_json::to_string(messages).unwrap_or_default(),
        other => format!("{other:?}"),
    }
}

/// Texts to embed, as JSON.
pub(crate) fn inputs_text(inputs: &[EmbedInput]) -> String {
    let text = |input: &EmbedInput| match input {
        EmbedInput::Text(text) => serde_json::json!(text),
        EmbedInput::Tokens(tokens) => serde_json::json!(tokens),
        other => serde_json::json!(format!("{other:?}")),
    };
    serde_json::Value::Array(inputs.iter().map(text).collect()).to_string()
}

/// A query and its documents, as JSON.
pub(crate) fn documents_text(request: &RerankRequest) -> String {
    serde_json::json!({"query": request.query, "documents": request.documents}).to_string()
}
