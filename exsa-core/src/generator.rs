//! Seam 2: whatever turns a [`Request`] into a [`TokenStream`].

use crate::chat::ChatTemplateError;
use crate::model_info::ModelInfo;
use crate::request::Request;
use crate::sampler::SamplingError;
use crate::stats::EngineStats;
use crate::stop::StopError;
use crate::stream::TokenStream;
use crate::token::TokenId;

/// Generates text: the in-process [`Engine`](crate::engine::Engine), a worker process, a remote engine, or a
/// pool of any of these. Servers and applications know only this trait.
///
/// # Contract
///
/// - `submit` refuses bad or unplaceable requests at once with a typed error and never waits for capacity.
/// - Every accepted request ends with exactly one [`Event::Finished`](crate::stream::Event::Finished), whatever
///   happens to the generator.
/// - A consumer that does not read, or drops its stream, holds no other request up.
pub trait Generator: Send + Sync {
    /// The model that answers.
    fn model(&self) -> &ModelInfo;

    /// Accepts a request, or says why not.
    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError>;

    /// How the generator is doing.
    fn stats(&self) -> EngineStats;
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many requests wait already.
    #[error("the queue is full: {waiting} requests wait, the limit is {limit}")]
    QueueFull {
        /// Requests waiting.
        waiting: usize,
        /// Requests allowed to wait.
        limit: usize,
    },
    /// The prompt has no token, and the model puts none before it.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens, but at most {limit} fit ({what}, less one for the answer)")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that would fit.
        limit: usize,
        /// What sets the limit.
        what: &'static str,
    },
    /// A token id of the prompt or of the stop tokens is not in the vocabulary.
    #[error("token id {token} is outside the vocabulary of {n_vocab}")]
    InvalidToken {
        /// The id.
        token: TokenId,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// `tokens_max` is 0.
    #[error("tokens_max is 0; at least 1 token is generated")]
    NoTokens,
    /// A sampling parameter is out of its range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A stop string cannot be used.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// The conversation could not be rendered.
    #[error(transparent)]
    Chat(#[from] ChatTemplateError),
    /// The generator takes no more requests.
    #[error("the engine is shutting down")]
    ShuttingDown,
}
