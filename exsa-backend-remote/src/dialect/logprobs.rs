//! Log-probabilities of OpenAI's routes, in both forms.
//!
//! Completions have parallel lists (`tokens`, `token_logprobs`, `top_logprobs`), conversations a list of
//! entries (`content`). llama-server writes entries on both routes.

use crate::dialect::update::{Draft, best, drafts, real, token_id};
use exsa_core::TokenId;
use exsa_core::stream::TopLogprob;
use serde_json::Value;

/// Log-probabilities of an event, one per token.
#[derive(Default)]
pub(super) struct Logprobs {
    /// Texts of the tokens, used to split the event's text.
    pieces: Vec<String>,
    values: Vec<(Option<f32>, Vec<TopLogprob>)>,
}

impl Logprobs {
    /// Reads the field `logprobs` of a choice, with the `top` most probable tokens per position.
    pub(super) fn read(value: &Value, top: usize) -> Self {
        if let Some(entries) = value["content"].as_array() {
            return Self {
                pieces: entries.iter().map(|entry| text(&entry["token"])).collect(),
                values: entries.iter().map(|entry| of_entry(entry, top)).collect(),
            };
        }
        let Some(logprobs) = value["token_logprobs"].as_array() else { return Self::default() };
        let tokens = value["tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let tops = logprobs
            .iter()
            .enumerate()
            .map(|(index, logprob)| (real(logprob), top_of_completion(&value["top_logprobs"][index], top)));
        Self { pieces: tokens.iter().map(text).collect(), values: tops.collect() }
    }

    /// Creates drafts with these log-probabilities: one per id of `ids`; else one per token, if their texts
    /// concatenate to `content`; else a single one with all of `content` and the first log-probability.
    pub(super) fn drafts(self, ids: Vec<TokenId>, content: &str) -> Vec<Draft> {
        let divides = self.pieces.len() == self.values.len() && self.pieces.concat() == content;
        if !ids.is_empty() || !divides {
            return drafts(ids, content, self.values);
        }
        let draft = |(text, (logprob, top))| Draft { text, logprob, top, ..Draft::default() };
        self.pieces.into_iter().zip(self.values).map(draft).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Parses token and text of a position. vLLM writes `token_id:7` if ids are requested.
fn named(text: &str, logprob: f32) -> TopLogprob {
    match text.strip_prefix("token_id:").and_then(|id| id.parse().ok()) {
        Some(id) => TopLogprob::new(Some(id), logprob),
        None => TopLogprob::new(None, logprob).text(text),
    }
}

fn top_of_completion(value: &Value, n: usize) -> Vec<TopLogprob> {
    let Value::Object(map) = value else { return Vec::new() };
    best(map.iter().filter_map(|(text, logprob)| Some(named(text, real(logprob)?))).collect(), n)
}

fn of_entry(entry: &Value, n: usize) -> (Option<f32>, Vec<TopLogprob>) {
    let top = entry["top_logprobs"].as_array().map_or(&[][..], Vec::as_slice);
    (real(&entry["logprob"]), best(top.iter().filter_map(candidate).collect(), n))
}

/// Parses a candidate of an entry. Its id is `token_id` in vLLM's routes of ids, and `id` in llama-server's.
fn candidate(entry: &Value) -> Option<TopLogprob> {
    let logprob = real(&entry["logprob"])?;
    let id = token_id(&entry["token_id"]).or_else(|_| token_id(&entry["id"])).ok();
    Some(match (id, entry["token"].as_str()) {
        (None, Some(text)) => named(text, logprob),
        (Some(id), Some(text)) if !text.starts_with("token_id:") => {
            TopLogprob::new(Some(id), logprob).text(text)
        }
        (id, _) => TopLogprob::new(id, logprob),
    })
}
