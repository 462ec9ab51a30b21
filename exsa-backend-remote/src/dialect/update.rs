//! News of an answer, apart from the protocol.

use crate::error::RemoteError;
use exsa_core::TokenId;
use exsa_core::stream::{ToolCallDelta, TopLogprob};
use serde_json::Value;

/// A token or a piece of text of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Draft {
    pub(crate) id: Option<TokenId>,
    /// Text by the engine.
    pub(crate) text: String,
    /// Whether the engine says that it is reasoning.
    pub(crate) reasoning: bool,
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<TopLogprob>,
}

/// The engine's reason for the end of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RemoteEnd {
    /// The model ended its answer, by a token where the engine tells.
    Stop(Option<TokenId>),
    /// The limit of tokens, or the context is full.
    Length,
    /// The answer ended with calls of tools.
    ToolCalls,
    /// The engine ended the answer.
    Failed(String),
}

/// Tokens as the engine counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteUsage {
    pub(crate) prompt: Option<usize>,
    pub(crate) completion: Option<usize>,
    pub(crate) cached: Option<usize>,
}

impl RemoteUsage {
    /// OpenAI's object `usage`.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let usage = value.get("usage").filter(|usage| usage.is_object())?;
        Some(Self {
            prompt: count(&usage["prompt_tokens"]),
            completion: count(&usage["completion_tokens"]),
            cached: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        })
    }

    /// Takes the counts that `other` has.
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
    /// The content of an event's JSON.
    fn read(&mut self, value: &Value) -> Result<Update, RemoteError>;

    /// A reader of the same answer from its start.
    fn fresh(&self) -> Box<dyn Reader>;

    /// Whether the end of the stream is the end of the answer: the protocol has no finish reason.
    fn ends_silently(&self) -> bool {
        false
    }
}

/// Drafts of `ids`, the last of which has the whole text; or of the text alone.
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

/// Token ids of a list.
///
/// # Errors
///
/// An element is no token id.
pub(crate) fn token_ids(value: &Value) -> Result<Vec<TokenId>, RemoteError> {
    let Some(items) = value.as_array() else {
        return match value {
            Value::Null => Ok(Vec::new()),
            _ => Err(RemoteError::Protocol("token ids that are no list".to_owned())),
        };
    };
    items.iter().map(token_id).collect()
}

pub(crate) fn token_id(value: &Value) -> Result<TokenId, RemoteError> {
    let id = value.as_u64().and_then(|id| TokenId::try_from(id).ok());
    id.ok_or_else(|| RemoteError::Protocol(format!("{value} is no token id")))
}

pub(crate) fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok())
}

/// A log-probability. Engines write large negative numbers for zero probability.
pub(crate) fn real(value: &Value) -> Option<f32> {
    value.as_f64().map(|value| value as f32)
}

/// The `n` most probable, the best first.
pub(crate) fn best(mut top: Vec<TopLogprob>, n: usize) -> Vec<TopLogprob> {
    top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
    top.truncate(n);
    top
}
