//! How a request ends: reason, error and usage.

use crate::error::StepError;
use crate::sampler::SampleError;
use crate::token::TokenId;
use std::time::Duration;

/// Why a request ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its answer with an end-of-generation token.
    EndOfGeneration,
    /// One of the request's stop tokens was generated.
    StopToken(TokenId),
    /// One of the request's stop strings appeared; its index in the request. The text ends just before it.
    StopString(usize),
    /// The request's `max_tokens` were generated.
    MaxTokens,
    /// The sequence filled the context, or the whole KV cache.
    ContextFull,
    /// The request was cancelled, its stream was dropped, or the engine was shut down.
    Cancelled,
    /// The request's deadline passed.
    Deadline,
    /// No token was there within the request's `first_token_timeout`.
    FirstTokenTimeout,
    /// The request failed.
    Failed(RequestError),
}

/// Why a request failed after it was accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The forward pass failed for this sequence.
    #[error("forward pass: {0}")]
    Step(String),
    /// No token could be sampled from the logits.
    #[error("sampling: {0}")]
    Sample(#[from] SampleError),
    /// The backend panicked; the engine has stopped.
    #[error("the backend panicked: {0}")]
    Panicked(String),
    /// The engine stopped before the request ended.
    #[error("the engine has stopped")]
    EngineStopped,
}

impl From<&StepError> for RequestError {
    fn from(error: &StepError) -> Self {
        Self::Step(error.to_string())
    }
}

/// What a request took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt, BOS included.
    pub prompt_tokens: usize,
    /// Tokens of the prompt whose KV was there already.
    pub cached_tokens: usize,
    /// Tokens generated, the one that ended the answer included.
    pub completion_tokens: usize,
    /// From submission until the request was first given a sequence.
    pub queue_time: Option<Duration>,
    /// From submission until the first token.
    pub time_to_first_token: Option<Duration>,
    /// From submission to the end.
    pub total_time: Duration,
}

impl Usage {
    /// Tokens per second after the first; `None` for fewer than two tokens.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let rest = self.completion_tokens.checked_sub(1).filter(|n| *n > 0)?;
        let time = self.total_time.checked_sub(self.time_to_first_token?)?;
        (time > Duration::ZERO).then(|| rest as f64 / time.as_secs_f64())
    }
}
