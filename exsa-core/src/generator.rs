//! Seam 2: the token level. A [`Generator`] turns a [`Request`] into a [`TokenStream`].

use crate::chat::ChatTemplateError;
use crate::embed::{EmbedOutput, EmbedRequest, Pending, RerankOutput, RerankRequest};
use crate::model_info::ModelInfo;
use crate::priority::Priority;
use crate::request::Request;
use crate::sampler::SamplingError;
use crate::stats::EngineStats;
use crate::stream::TokenStream;
use crate::text::StopError;
use crate::token::TokenId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
    /// The models that answer, the default one first; for a pool whose models come and go, those it has now.
    /// [`Request::model`] chooses among them by [`ModelInfo::name`].
    fn models(&self) -> Vec<Arc<ModelInfo>>;

    /// Accepts a request.
    ///
    /// # Errors
    ///
    /// The reason why the request is refused.
    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError>;

    /// Accepts texts to embed, in an order that the output keeps. The default refuses.
    ///
    /// # Errors
    ///
    /// The reason why the request is refused.
    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        let _ = request;
        let reason = "this generator gives no embeddings".into();
        Err(SubmitError::Unsupported { operation: "embed", reason })
    }

    /// Accepts documents to score against a query. The default refuses.
    ///
    /// # Errors
    ///
    /// The reason why the request is refused.
    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        let _ = request;
        let reason = "this generator gives no scores".into();
        Err(SubmitError::Unsupported { operation: "rerank", reason })
    }

    /// A snapshot of the counters, over all models.
    fn stats(&self) -> EngineStats;
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many requests wait already.
    #[error(
        "the queue {scope} is full: {waiting} requests wait, the limit is {limit}; {class_depth} of class {} wait{}",
        priority.name(),
        estimated(estimated_wait)
    )]
    QueueFull {
        /// Requests waiting.
        waiting: usize,
        /// Requests allowed to wait.
        limit: usize,
        /// Whose queue is full.
        scope: QueueScope,
        /// The request's class.
        priority: Priority,
        /// Requests of this class waiting.
        class_depth: usize,
        /// How long a request of this class would wait, going by how fast the queue moved lately; `None` before it moved.
        estimated_wait: Option<Duration>,
    },
    /// The request can never fit: its prompt and the answer that it asks for need more KV than the engine has.
    #[error(
        "{tokens} tokens of prompt and answer need {needed} bytes of KV, but the cache has {available}; \
         up to {tokens_max} tokens of answer would fit"
    )]
    KvTooLarge {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Bytes of KV that they take.
        needed: u64,
        /// Bytes of KV that there are.
        available: u64,
        /// Tokens of answer that would fit after this prompt.
        tokens_max: usize,
    },
    /// A weight is out of its range.
    #[error("weight {0} is not between 0.001 and 1000")]
    Weight(f32),
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
    /// A text or a conversation cannot end with tokens that were generated before: only token ids can.
    #[error("only a prompt of token ids can be resumed, not a text or a conversation")]
    ResumeWithoutTokens,
    /// A resumed prompt has fewer tokens than were generated before.
    #[error("{generated} tokens of the prompt are said to be generated before, but it has only {tokens}")]
    ResumeTooLong {
        /// Tokens said to be generated before.
        generated: usize,
        /// Tokens of the prompt, those included.
        tokens: usize,
    },
    /// A text to embed has no token, and the model puts none around it.
    #[error("text {index} is empty")]
    EmptyText {
        /// Index of the text in the request.
        index: usize,
    },
    /// A text to embed, or a pair to score, does not fit into one pass.
    #[error("text {index} has {tokens} tokens, but at most {limit} fit ({what})")]
    TextTooLong {
        /// Index of the text, or of the document, in the request.
        index: usize,
        /// Tokens of the text.
        tokens: usize,
        /// Tokens that would fit.
        limit: usize,
        /// The limit's name.
        what: &'static str,
    },
    /// A setting of the request is out of its range.
    #[error("{option}: {problem}")]
    Option {
        /// Name of the field.
        option: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A token id of the prompt or of the stop tokens is not in the vocabulary.
    #[error("token id {token} is outside the vocabulary of {n_vocab}")]
    InvalidToken {
        /// The id.
        token: TokenId,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// `max_tokens` is 0.
    #[error("max_tokens is 0; at least 1 token is generated")]
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
    /// The generator has no model of this name.
    #[error("there is no model '{model}'; available: {}", available.join(", "))]
    UnknownModel {
        /// The name asked for.
        model: String,
        /// Names of the models that there are.
        available: Vec<String>,
    },
    /// The generator, or its model, cannot do this.
    #[error("{operation}: {reason}")]
    Unsupported {
        /// The operation: `embed`, `rerank`.
        operation: &'static str,
        /// Why not, and what to do about it.
        reason: String,
    },
    /// A worker process or a remote engine failed for a reason of its own.
    #[error("generator: {0}")]
    Generator(String),
    /// The generator takes no more requests.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// The queue that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueScope {
    /// The engine's.
    All,
    /// The user's own.
    User,
}

impl fmt::Display for QueueScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "of the engine",
            Self::User => "of this user",
        })
    }
}

fn estimated(wait: &Option<Duration>) -> String {
    wait.map_or(String::new(), |wait| format!(", for about {:.1} s", wait.as_secs_f64()))
}
