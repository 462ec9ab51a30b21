//! One error type for every step from a file to an answer.

use exsa_core::embed::EmbedError;
use exsa_core::error::LoadError;
use exsa_core::{RequestError, SubmitError};

/// Any failure between loading a model and the end of an answer.
///
/// Each step has its own error type; all of them convert to this one with `?`.
///
/// ```
/// use exsa::{Engine, Error};
///
/// let error = Engine::load("no-such-model.gguf").unwrap_err();
/// assert!(matches!(error, Error::Load(_)));
/// assert!(error.to_string().contains("no-such-model.gguf"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be loaded, or the session could not be created.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The request was refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The request failed after it was accepted.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Embedding or scoring failed after the request was accepted.
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
