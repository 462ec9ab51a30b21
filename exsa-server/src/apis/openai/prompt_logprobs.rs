//! vLLM's `prompt_logprobs`: log-probabilities of prompt tokens.

use super::logprobs::{LOWEST, text_of};
use exsa_core::stream::PromptToken;
use exsa_core::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// For each token, an object by token id with the token itself and the most probable ones at its position;
/// null for the first token. `rank` is null for a token that is not among the most probable.
pub(crate) fn prompt_logprobs(tokens: &[PromptToken], tokenizer: &dyn Tokenizer) -> Value {
    let entry = |id, logprob: f32, rank: Option<usize>| json!({"logprob": logprob.max(LOWEST), "rank": rank, "decoded_token": text_of(id, tokenizer)});
    let position = |token: &PromptToken| {
        let Some(logprob) = token.logprob else { return Value::Null };
        let mut candidates = Map::new();
        candidates.insert(token.id.to_string(), entry(token.id, logprob, None));
        for (rank, top) in (1..).zip(&token.top_logprobs) {
            if let Some(id) = top.id {
                candidates.insert(id.to_string(), entry(id, top.logprob, Some(rank)));
            }
        }
        Value::Object(candidates)
    };
    tokens.iter().map(position).collect()
}
