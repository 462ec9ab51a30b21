//! The interface to applications, at the level of tokens. A [`Generator`] turns a [`Request`] into a
//! [`TokenStream`].

use crate::adapter::request::listed;
use crate::adapter::{AdapterError, AdapterStatus};
use crate::backend::{Fingerprint, ModelSource};
use crate::chat::{ChatTemplateError, Rendered};
use crate::constraint::ConstraintError;
use crate::embed::{EmbedOutput, EmbedRequest, Pending, RerankOutput, RerankRequest};
use crate::model_info::ModelInfo;
use crate::priority::Priority;
use crate::request::Request;
use crate::sampler::SamplingError;
use crate::stats::EngineStats;
use crate::stream::TokenStream;
use crate::text::StopError;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A text generator: the in-process [`Engine`](crate::engine::Engine), a worker process, a
/// remote engine, or a pool of these. Servers and applications depend on this trait alone.
///
/// # Contract
///
/// - If a request is invalid or exceeds the capacity, `submit` returns a typed error at once; it never waits
///   for capacity.
/// - Every accepted request ends with exactly one [`Event::Finished`](crate::stream::Event::Finished), even
///   if the generator fails.
/// - A consumer that does not read its stream, or drops it, does not delay other requests.
pub trait Generator: Send + Sync {
    /// The available models, the default model first; for a dynamic pool, the current models.
    /// [`Request::model`] selects by [`ModelInfo::name`].
    fn models(&self) -> Vec<Arc<ModelInfo>>;

    /// Accepts a request.
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError>;

    /// Accepts texts to embed; outputs have the order of the texts. The default implementation refuses.
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        let _ = request;
        let reason = "this generator does not support embeddings".into();
        Err(SubmitError::Unsupported { operation: "embed", reason })
    }

    /// Accepts documents to score against a query. The default implementation refuses.
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        let _ = request;
        let reason = "this generator does not support reranking".into();
        Err(SubmitError::Unsupported { operation: "rerank", reason })
    }

    /// Number of prompt tokens of the request, including BOS and chat template. Does not validate the rest of
    /// the request. The default implementation refuses.
    ///
    /// # Errors
    ///
    /// The reason why the prompt cannot be tokenized.
    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        let _ = request;
        let reason = "this generator does not count tokens".into();
        Err(SubmitError::Unsupported { operation: "count_tokens", reason })
    }

    /// The text of the request's prompt; a conversation is rendered by the chat template. The default
    /// implementation refuses.
    ///
    /// # Errors
    ///
    /// The reason why the conversation cannot be rendered; [`SubmitError::Unsupported`] for a prompt of token
    /// ids, or if there is no template.
    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        let _ = request;
        let reason = "this generator does not render prompts".into();
        Err(SubmitError::Unsupported { operation: "render", reason })
    }

    /// The tokenizer of the named model, or of the default model. The default implementation refuses, since
    /// remote engines may not have one.
    ///
    /// # Errors
    ///
    /// [`SubmitError::UnknownModel`], or [`SubmitError::Unsupported`] if there is no tokenizer.
    fn tokenizer(&self, model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        let _ = model;
        let reason = "this generator has no tokenizer".into();
        Err(SubmitError::Unsupported { operation: "tokenizer", reason })
    }

    /// Validates a request without submitting it: refuses every request that [`submit`](Self::submit) would
    /// refuse regardless of load. Pools call it for requests that wait before they are submitted. The default
    /// implementation accepts every request.
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let _ = request;
        Ok(())
    }

    /// Loads a LoRA adapter for a model, or for the default model, under a name that requests can use
    /// ([`Request::adapters`]). The default implementation refuses.
    ///
    /// # Errors
    ///
    /// The reason for refusing the adapter.
    fn load_adapter(
        &self,
        model: Option<&str>,
        name: &str,
        source: &ModelSource,
    ) -> Result<AdapterStatus, AdapterError> {
        let _ = (model, name, source);
        Err(AdapterError::Unsupported { reason: "this generator does not load adapters".into() })
    }

    /// Unloads an adapter; requests that use it are still completed. The default implementation refuses.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Unknown`], or another variant if the model is not available.
    fn unload_adapter(&self, model: Option<&str>, name: &str) -> Result<(), AdapterError> {
        let _ = (model, name);
        Err(AdapterError::Unsupported { reason: "this generator does not load adapters".into() })
    }

    /// The loaded adapters of a model, or of the default model, by name. The default implementation returns
    /// none.
    fn adapters(&self, model: Option<&str>) -> Vec<AdapterStatus> {
        let _ = model;
        Vec::new()
    }

    /// Terms on which another generator can continue answers of a model, or of the default model, with
    /// [`Resume`](crate::Resume). The default implementation returns [`Continuation::refused`].
    fn continuation(&self, model: Option<&str>) -> Continuation {
        let _ = model;
        Continuation::refused()
    }

    /// A snapshot of the counters, over all models.
    fn stats(&self) -> EngineStats;

    /// A snapshot of the counters of each model, by name, including models that were unloaded.
    ///
    /// The default implementation attributes all counters to the default model, which is right for generators
    /// with one model.
    fn stats_by_model(&self) -> Vec<(Arc<str>, EngineStats)> {
        let name = self.models().first().map_or_else(Default::default, |model| model.name.as_str().into());
        vec![(name, self.stats())]
    }
}

/// How an answer that was interrupted and continued elsewhere relates to an uninterrupted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Continued {
    /// It cannot be continued.
    Refused,
    /// The continuation is sampled from the same distribution, but its tokens may differ.
    SameDistribution,
    /// The continuation has exactly the same tokens.
    Identical,
}

/// Terms on which answers are continued: [`Generator::continuation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Continuation {
    /// Relation of an answer that this generator begins or continues to an uninterrupted one, provided that
    /// the other generator has the same fingerprint and guarantees as much.
    pub continued: Continued,
    /// Identifies the weights and their quantization; `None` if unknown.
    pub fingerprint: Option<Fingerprint>,
}

impl Continuation {
    /// Terms of a generator whose weights have this fingerprint.
    pub fn new(continued: Continued, fingerprint: impl Into<Option<Fingerprint>>) -> Self {
        Self { continued, fingerprint: fingerprint.into() }
    }

    /// Terms on which no answer can be continued.
    pub fn refused() -> Self {
        Self::new(Continued::Refused, None)
    }

    /// Relation of an answer that begins on these terms and continues on those of `other`, to an
    /// uninterrupted one.
    pub fn with(&self, other: &Self) -> Continued {
        match (self.fingerprint, other.fingerprint) {
            (Some(a), Some(b)) if a == b => self.continued.min(other.continued),
            _ => Continued::Refused,
        }
    }
}

/// Reason for refusing a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many requests are waiting.
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
        /// Queue that is full.
        scope: QueueScope,
        /// The request's class.
        priority: Priority,
        /// Requests of this class waiting.
        class_depth: usize,
        /// Waiting requests that are at least as urgent, and so ahead of this one.
        ahead: usize,
        /// Estimated wait of a request of this class, from the recent admission rate; `None` before the first
        /// estimate.
        estimated_wait: Option<Duration>,
    },
    /// The request can never fit: its prompt and requested answer need more KV than the whole cache holds.
    #[error(
        "{tokens} tokens of prompt and answer need {needed} bytes of KV, but the cache has {available}; \
         an answer of up to {tokens_max} tokens would fit"
    )]
    KvTooLarge {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Bytes of KV that these need.
        needed: u64,
        /// Bytes of KV in the cache.
        available: u64,
        /// Answer tokens that would fit after this prompt.
        tokens_max: usize,
    },
    /// A weight is out of its range.
    #[error("weight {0} is not between 0.001 and 1000")]
    Weight(f32),
    /// The prompt has no tokens, and the model adds none.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt is too long to leave room for an answer.
    #[error("the prompt has {tokens} tokens, but at most {limit} fit ({what}, less one for the answer)")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Maximum tokens.
        limit: usize,
        /// Name of the limit.
        what: &'static str,
    },
    /// A text to embed has no tokens, and the model adds none.
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
        /// Maximum tokens.
        limit: usize,
        /// The limit's name.
        what: &'static str,
    },
    /// A setting of the request is out of its range.
    #[error("{option}: {problem}")]
    Option {
        /// Name of the field.
        option: &'static str,
        /// The problem, and the allowed range.
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
    /// The constraint cannot be used.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The generator has no model with this name.
    #[error("there is no model '{model}'; available: {}", available.join(", "))]
    UnknownModel {
        /// The requested name.
        model: String,
        /// Names of the available models.
        available: Vec<String>,
    },
    /// The request uses an adapter that is not loaded.
    #[error("there is no adapter '{adapter}'; loaded: {}", listed(loaded))]
    UnknownAdapter {
        /// The requested name.
        adapter: String,
        /// Names of the loaded adapters.
        loaded: Vec<String>,
    },
    /// The request names no model, and the generator has no active model to use by default.
    #[error("the request names no model, and none is active; available: {}", available.join(", "))]
    NoActiveModel {
        /// Names of the models.
        available: Vec<String>,
    },
    /// The model is being loaded.
    #[error("model '{model}' is loading{}", estimated(retry_after))]
    ModelLoading {
        /// The model.
        model: String,
        /// Estimated time until the model is ready; `None` without an estimate.
        retry_after: Option<Duration>,
    },
    /// The model is known but not loaded, or it is being unloaded and accepts no more requests.
    #[error("model '{model}' is not loaded")]
    ModelUnloaded {
        /// The model.
        model: String,
    },
    /// The model could not be loaded, or its engine has ended.
    #[error("model '{model}' has failed: {reason}")]
    ModelFailed {
        /// The model.
        model: String,
        /// The reason.
        reason: String,
    },
    /// The generator or its model does not support the operation.
    #[error("{operation}: {reason}")]
    Unsupported {
        /// The operation, such as `embed`, `rerank` or `render`.
        operation: &'static str,
        /// The reason, and a remedy if there is one.
        reason: String,
    },
    /// A failure specific to a worker process or a remote engine.
    #[error("generator: {0}")]
    Generator(String),
    /// The generator accepts no more requests.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// The queue to which a limit applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueScope {
    /// The queue of the whole engine.
    All,
    /// The user's own queue.
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
