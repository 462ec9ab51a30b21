//! End of a request: reason, error and usage.

use crate::constraint::ConstraintError;
use crate::error::StepError;
use crate::sampler::SampleError;
use crate::stats::DraftStats;
use crate::token::TokenId;
use std::time::Duration;

/// Finish reason of a request or of one of its answers.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "type", content = "value", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its answer with an end-of-generation token.
    EndOfGeneration,
    /// One of the request's stop tokens was generated.
    StopToken(TokenId),
    /// One of the request's stop strings was generated; the value is its index in the request. The text ends
    /// just before it.
    StopString(usize),
    /// One of the request's banned strings could not be avoided within the limits of
    /// [`Request::banned_strings`](crate::Request::banned_strings); the value is its index in the request.
    /// The text ends before it.
    BannedString(usize),
    /// The request's `max_tokens` were generated.
    MaxTokens,
    /// A tool call was completed, and the request allows no parallel calls.
    ToolCall,
    /// The sequence filled the context, or the whole KV cache.
    ContextFull,
    /// The request was cancelled, its stream was dropped, or the engine was shut down.
    Cancelled,
    /// The request's deadline passed.
    Deadline,
    /// No token was generated within the request's `first_token_timeout`.
    FirstTokenTimeout,
    /// The request failed.
    Failed(RequestError),
}

impl FinishReason {
    /// Converts [`Failed`](Self::Failed) into its error, for use with `?`.
    ///
    /// # Errors
    ///
    /// The error of [`Failed`](Self::Failed).
    pub fn into_result(self) -> Result<Self, RequestError> {
        match self {
            Self::Failed(error) => Err(error),
            reason => Ok(reason),
        }
    }

    /// The corresponding `finish_reason` of OpenAI's API, for an answer without tool calls: `stop`, `length`,
    /// `content_filter` for [`BannedString`](Self::BannedString), or `error` for a request that failed, was
    /// cancelled or exceeded a time limit, for which OpenAI has no name.
    pub fn openai(&self) -> &'static str {
        match self {
            Self::EndOfGeneration | Self::StopToken(_) | Self::StopString(_) => "stop",
            Self::ToolCall => "tool_calls",
            Self::MaxTokens | Self::ContextFull => "length",
            Self::BannedString(_) => "content_filter",
            Self::Cancelled | Self::Deadline | Self::FirstTokenTimeout | Self::Failed(_) => "error",
        }
    }

    /// The error of a failed request; `None` for other reasons.
    pub fn error(&self) -> Option<&RequestError> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// Error of a request that failed after it was accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The forward pass failed for this sequence.
    #[error("forward pass: {0}")]
    Step(#[from] StepError),
    /// No token could be sampled from the logits.
    #[error("sampling: {0}")]
    Sample(#[from] SampleError),
    /// The answer cannot continue under its constraint.
    #[error("constraint: {0}")]
    Constraint(#[from] ConstraintError),
    /// The backend panicked; the engine has stopped.
    #[error("the backend panicked: {0}")]
    Panicked(String),
    /// A value of the result is not a finite number.
    #[error("value {index} of the {result} is {value}, not a finite number")]
    NotFinite {
        /// Kind of result: a vector or a score.
        result: &'static str,
        /// Index of the value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A failure specific to a worker process or a remote engine.
    #[error("generator: {0}")]
    Generator(String),
    /// The engine stopped before the request ended.
    #[error("the engine has stopped")]
    EngineStopped,
    /// The worker process, the connection or the engine that computed the request was lost.
    #[error("{0}")]
    Lost(String),
    /// The engine could not be reached or had no capacity; the request did not run.
    #[error("{0}")]
    Unavailable(String),
    /// Workers or engines crashed so often while they computed the request that it is not retried.
    #[error(
        "{crashes} workers or engines crashed while computing the request, so it is not retried; \
         last crash: {reason}"
    )]
    Crashed {
        /// Crashes of workers or engines that computed the request.
        crashes: u32,
        /// Reason of the last crash.
        reason: String,
    },
}

impl RequestError {
    /// Whether the engine was lost, rather than the request being at fault, so that another engine can
    /// continue the request.
    pub fn is_lost_engine(&self) -> bool {
        matches!(self, Self::Panicked(_) | Self::EngineStopped | Self::Lost(_) | Self::Unavailable(_))
    }
}

/// Token counts and times of a request.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt, BOS included.
    pub prompt_tokens: usize,
    /// Prompt tokens whose KV came from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens generated, including the token that ended the answer.
    pub completion_tokens: usize,
    /// Time from submission to first admission.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub queue_time: Option<Duration>,
    /// Time from submission to the first token.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub time_to_first_token: Option<Duration>,
    /// Time from submission to the end.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub total_time: Duration,
    /// Messages dropped from the conversation to fit the context window:
    /// [`Overflow::DropMessages`](crate::Overflow::DropMessages).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "crate::wire::is_zero"))]
    pub dropped_messages: usize,
    /// Tokens dropped by shifts of the context, over all answers:
    /// [`Overflow::Shift`](crate::Overflow::Shift).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "crate::wire::is_zero"))]
    pub shifted_tokens: usize,
    /// Speculative drafts that were verified and accepted, over all answers. Boxed to keep events small.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "DraftStats::is_empty"))]
    pub drafts: Box<DraftStats>,
}

impl Usage {
    /// Creates usage with token counts and without times.
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, ..Self::default() }
    }

    /// Sets the prompt tokens whose KV came from the prefix cache.
    #[must_use]
    pub fn cached_tokens(mut self, tokens: usize) -> Self {
        self.cached_tokens = tokens;
        self
    }

    /// Sets the time from submission to first admission.
    #[must_use]
    pub fn queue_time(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.queue_time = time.into();
        self
    }

    /// Sets the time from submission to the first token.
    #[must_use]
    pub fn time_to_first_token(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.time_to_first_token = time.into();
        self
    }

    /// Sets the time from submission to the end.
    #[must_use]
    pub fn total_time(mut self, time: Duration) -> Self {
        self.total_time = time;
        self
    }

    /// Sets the number of dropped messages.
    #[must_use]
    pub fn dropped_messages(mut self, messages: usize) -> Self {
        self.dropped_messages = messages;
        self
    }

    /// Sets the tokens dropped by shifts of the context.
    #[must_use]
    pub fn shifted_tokens(mut self, tokens: usize) -> Self {
        self.shifted_tokens = tokens;
        self
    }

    /// Sets the drafts that were verified and accepted.
    #[must_use]
    pub fn drafts(mut self, drafts: DraftStats) -> Self {
        self.drafts = Box::new(drafts);
        self
    }

    /// Decode speed in tokens per second, measured after the first token; `None` for fewer than two tokens.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let rest = self.completion_tokens.checked_sub(1).filter(|n| *n > 0)?;
        let time = self.total_time.checked_sub(self.time_to_first_token?)?;
        (time > Duration::ZERO).then(|| rest as f64 / time.as_secs_f64())
    }
}
