#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod engine;
mod error;
pub mod guide;

pub use builder::EngineBuilder;
pub use engine::Engine;
pub use error::{Error, Result};

#[doc(no_inline)]
pub use exsa_core as core;
pub use exsa_core::backend::{
    InferenceBackend, KvType, MemoryEstimate, ModelSource, PackedCache, PackedCheck, WeightPages,
};
pub use exsa_core::chat::ChatOptions;
pub use exsa_core::error::LoadError;
pub use exsa_core::model_info::ModelInfo;
pub use exsa_core::speculate::Speculation;
pub use exsa_core::stats::EngineStats;
pub use exsa_core::stream::{CancelHandle, Completion, Finished, Token};
pub use exsa_core::tools::{ReasoningOptions, ToolOptions};
pub use exsa_core::{
    Constraint, EmbedRequest, EngineOptions, Event, FinishReason, Generator, Message, Mode, Overflow,
    Priority, Prompt, Request, RequestError, RerankRequest, Resume, SamplingParams, Shutdown, SubmitError,
    TokenId, TokenStream, Usage,
};

#[cfg(feature = "candle")]
#[doc(no_inline)]
pub use exsa_backend_candle as candle;
#[cfg(feature = "gpu-cuda")]
#[doc(no_inline)]
pub use exsa_backend_cuda as cuda;
#[cfg(feature = "llamacpp")]
#[doc(no_inline)]
pub use exsa_backend_llamacpp as llamacpp;
#[cfg(feature = "gpu-metal")]
#[doc(no_inline)]
pub use exsa_backend_metal as metal;
#[cfg(feature = "remote")]
#[doc(no_inline)]
pub use exsa_backend_remote as remote;
#[cfg(feature = "registry")]
#[doc(no_inline)]
pub use exsa_core::registry;
#[cfg(feature = "pool")]
#[doc(no_inline)]
pub use exsa_pool as pool;
#[cfg(feature = "server")]
#[doc(no_inline)]
pub use exsa_server as server;
#[cfg(feature = "tiny")]
#[doc(no_inline)]
pub use exsa_tiny as tiny;
#[cfg(feature = "worker")]
#[doc(no_inline)]
pub use exsa_worker as worker;

use std::sync::Arc;

/// The default backend of [`EngineBuilder`]: candle if enabled, else llama.cpp; `None` in a build with
/// neither.
pub fn default_backend() -> Option<Arc<dyn InferenceBackend>> {
    #[cfg(feature = "candle")]
    return Some(Arc::new(exsa_backend_candle::CandleBackend::new()));
    #[cfg(all(feature = "llamacpp", not(feature = "candle")))]
    return Some(Arc::new(exsa_backend_llamacpp::LlamaCppBackend::new()));
    #[cfg(not(any(feature = "candle", feature = "llamacpp")))]
    return None;
}

/// Compiles the program of the repository's README as a doctest.
#[cfg(all(doctest, feature = "candle"))]
#[doc = include_str!("../../README.md")]
pub struct RepositoryReadme;
