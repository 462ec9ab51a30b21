//! Errors of connections and responses.

use exsa_core::RequestError;
use std::time::Duration;

/// Reason why a remote engine cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// An option is invalid.
    #[error("{option}: {problem}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The problem, and the allowed values.
        problem: String,
    },
    /// The engine did not respond, or not as expected.
    #[error("{url}: {error}")]
    Engine {
        /// URL of the request.
        url: String,
        /// The failure.
        error: RemoteError,
    },
    /// The engine does not serve the model.
    #[error("the engine has no model '{model}'; available: {}", available.join(", "))]
    UnknownModel {
        /// The requested name.
        model: String,
        /// Names that the engine lists.
        available: Vec<String>,
    },
    /// The tokenizer's file cannot be read.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}

/// Failure of a request at a remote engine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No connection could be made.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The connection was lost before the first token.
    #[error("connection: {0}")]
    Connection(String),
    /// The connection was lost after the first token.
    #[error("the connection was lost in mid-stream: {0}")]
    Lost(String),
    /// The engine gave no response within the time limit.
    #[error("no response within {0:?}")]
    FirstByteTimeout(Duration),
    /// The engine sent nothing for longer than the time limit.
    #[error("no byte within {0:?}")]
    IdleTimeout(Duration),
    /// The engine refused the request.
    #[error("status {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The engine's message.
        message: String,
        /// The delay that the engine asks for.
        retry_after: Option<Duration>,
    },
    /// The engine reported an error in mid-stream.
    #[error("the engine reports: {0}")]
    Engine(String),
    /// The engine's response has an unexpected form.
    #[error("unexpected response: {0}")]
    Protocol(String),
}

impl RemoteError {
    /// Returns whether a retry of the request may succeed.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Connection(_) => true,
            Self::Status { status, .. } => is_temporary(*status),
            _ => false,
        }
    }

    /// Delay that the engine asks for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Returns whether the status means that a retry, now or elsewhere, may succeed.
pub(crate) fn is_temporary(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

impl From<RemoteError> for RequestError {
    /// If this engine is lost, another one may continue; if it was unreachable or at capacity, the request
    /// did not begin.
    fn from(error: RemoteError) -> Self {
        let text = error.to_string();
        match error {
            RemoteError::Unreachable(_) | RemoteError::Status { status: 429 | 503, .. } => {
                Self::Unavailable(text)
            }
            RemoteError::Connection(_)
            | RemoteError::Lost(_)
            | RemoteError::FirstByteTimeout(_)
            | RemoteError::IdleTimeout(_)
            | RemoteError::Status { status: 502 | 504, .. } => Self::Lost(text),
            _ => Self::Generator(text),
        }
    }
}
