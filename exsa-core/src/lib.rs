//! The core of Exsa, an LLM inference engine that runs inside a Rust program.
//!
//! A host program loads a [`Model`](backend::Model) with a backend, starts an [`Engine`] on it, submits
//! [`Request`]s and reads the generated text from each [`TokenStream`]:
//!
//! ```
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions, Request};
//!
//! let model = ScriptedModel::echo("Hello, world.").shared(); // a real program: backend.load(...)
//! let engine = Engine::start(model, EngineOptions::default())?;
//! let mut answer = engine.submit(Request::text("Hello").max_tokens(100))?;
//! for piece in answer.text() {
//!     print!("{}", piece?); // an error, if the request fails
//! }
//! println!("\n{:?}", answer.usage());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate has two interfaces. [`backend`] is the lower one, at the level of logits: a backend runs forward
//! passes, and Exsa schedules, batches and samples. [`generator`] is the upper one, at the level of tokens:
//! servers and applications submit requests to it. The crate needs no async runtime and has no global state
//! and no `unsafe` code.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

pub mod adapter;
pub mod backend;
pub mod batch;
pub mod cache_events;
pub mod chat;
pub mod clock;
pub mod constraint;
pub mod embed;
pub mod engine;
pub mod error;
pub mod finish;
pub mod generator;
pub mod gguf;
pub mod model_file;
pub mod model_info;
mod options;
mod overflow;
pub mod priority;
pub mod prompt_cache;
#[cfg(feature = "registry")]
pub mod registry;
pub mod request;
#[cfg(any(feature = "peft", feature = "safetensors"))]
mod safetensors;
pub mod sampler;
#[doc(hidden)]
pub mod schedule;
pub mod scripted;
mod setters;
pub mod speculate;
pub mod stats;
pub mod stream;
pub mod text;
pub mod token;
pub mod tokenizer;
pub mod tools;
#[cfg(feature = "serde")]
mod wire;

pub use chat::Message;
pub use constraint::Constraint;
pub use embed::{EmbedRequest, RerankRequest};
pub use engine::{Engine, EngineInfo, EngineLoop, RequestValidator, Shutdown};
pub use finish::{FinishReason, RequestError, Usage};
pub use generator::{Continuation, Continued, Generator, SubmitError};
pub use options::EngineOptions;
pub use overflow::Overflow;
pub use priority::Priority;
pub use prompt_cache::PromptCacheOptions;
pub use request::{Prompt, Request, Resume};
pub use sampler::SamplingParams;
pub use schedule::Mode;
pub use schedule::prefix::PrefixCacheOptions;
pub use schedule::queue;
pub use stream::{Event, TokenStream};
pub use token::{AdapterId, RequestId, SeqId, TokenId};
#[cfg(feature = "serde")]
pub use wire::ErrorReport;
