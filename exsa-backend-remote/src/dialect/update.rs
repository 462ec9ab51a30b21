//! Protocol-independent updates of an answer.

use crate::error::RemoteError;
use exsa_core::TokenId;
use exsa_core::stream::{ToolCallDelta, TopLogprob};
use serde_json::Value;

/// A token or a piece of text of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Draft {
    pub(crate) id: Option<TokenId>,
    /// Text from the engine.
    pub(crate) text: String,
    /// Whether the engine marks it as reasoning.
    pub(crate) reasoning: bool,
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<TopLogprob>,
}

/// The engine's finish reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RemoteEnd {
    /// The model ended its answer, with a token if the engine reports it.
    Stop(Option<TokenId>),
    /// The token limit was reached, or the context is full.
    Length,
    /// The answer ended with tool calls.
    ToolCalls,
    /// The engine ended the answer.
    Failed(String),
}

/// Token counts reported by the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteUsage {
    pub(crate) prompt: Option<usize>,
    pub(crate) completion: Option<usize>,
    pub(crate) cached: Option<usize>,
}

impl RemoteUsage {
    /// Reads OpenAI's object `usage`.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let usage = value.get("usage").filter(|usage| usage.is_object())?;
        Some(Self {
            prompt: count(&usage["prompt_tokens"]),
            completion: count(&usage["completion_tokens"]),
            cached: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        })
    }

    /// Takes the counts that are present in `other`.
    pub(crate) fn merge(&mut self, other: Self) {
        self.prompt = other.prompt.or(self.prompt);
        self.completion = other.completion.or(self.completion);
        self.cached = other.cached.or(self.cached);
    }
}

/// The content of one event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Update {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) tool_calls: Vec<ToolCallDelta>,
    pub(crate) end: Option<RemoteEnd>,
    pub(crate) usage: Option<RemoteUsage>,
}

/// Reads the events of one answer.
pub(crate) trait Reader: Send + Sync {
    /// Reads the content of an event's JSON.
    fn read(&mut self, value: &Value) -> Result<Update, RemoteError>;

    /// Returns a new reader of the same answer, from its start.
    fn fresh(&self) -> Box<dyn Reader>;

    /// Returns whether the end of the stream is the end of the answer, for protocols without a finish reason.
    fn ends_silently(&self) -> bool {
        false
    }
}

/// Creates drafts for `ids`, the last of which has the whole text; or for the text alone.
pub(crate) fn drafts(
    ids: Vec<TokenId>,
    text: &str,
    logprobs: Vec<(Option<f32>, Vec<TopLogprob>)>,
) -> Vec<Draft> {
    let mut logprobs = logprobs.into_iter();
    if ids.is_empty() {
        if text.is_empty() {
            return Vec::new();
        }
        let (logprob, top) = logprobs.next().unwrap_or_default();
        return vec![Draft { text: text.to_owned(), logprob, top, ..Draft::default() }];
    }
    let mut drafts: Vec<Draft> = ids
        .into_iter()
        .map(|id| {
            let (logprob, top) = logprobs.next().unwrap_or_default();
            Draft { id: Some(id), logprob, top, ..Draft::default() }
        })
        .collect();
    if let Some(last) = drafts.last_mut() {
        text.clone_into(&mut last.text);
    }
    drafts
}

/// Reads a list of token ids.
///
/// # Errors
///
/// An element is not a token id.
pub(crate) fn token_ids(value: &Value) -> Result<Vec<TokenId>, RemoteError> {
    let Some(items) = value.as_array() else {
        return match value {
            Value::Null => Ok(Vec::new()),
            _ => Err(RemoteError::Protocol("token ids are not a list".to_owned())),
        };
    };
    items.iter().map(token_id).collect()
}

pub(crate) fn token_id(value: &Value) -> Result<TokenId, RemoteError> {
    let id = value.as_u64().and_then(|id| TokenId::try_from(id).ok());
    id.ok_or_else(|| RemoteError::Protocol(format!("{value} is not a token id")))
}

pub(crate) fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok())
}

/// Reads a log-probability. Engines write large negative numbers for zero probability.
pub(crate) fn real(value: &Value) -> Option<f32> {
    value.as_f64().map(|value| value as f32)
}

/// Returns the `n` most probable, best first.
pub(crate) fn best(mut top: Vec<TopLogprob>, n: usize) -> Vec<TopLogprob> {
    top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
    top.truncate(n);
    top
}
