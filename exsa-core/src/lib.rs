//! The core of Exsa, an LLM inference engine that lives inside a Rust program.
//!
//! A host loads a [`Model`](backend::Model) with a backend, starts an [`Engine`] on it, submits [`Request`]s and
//! reads [`TokenStream`]s:
//!
//! ```
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::stream::Event;
//! use exsa_core::{Engine, EngineOptions, Generator, Request};
//!
//! let model = ScriptedModel::echo("Hello, world.").shared(); // a real program: backend.load(...)
//! let engine = Engine::start(model, EngineOptions::default())?;
//! let mut text = String::new();
//! for event in engine.submit(Request::text("Hello").max_tokens(100))? {
//!     match event {
//!         Event::Token(token) => text.push_str(&token.text),
//!         Event::Finished(finished) => println!("{:?}, {:?}", finished.reason, finished.usage),
//!     }
//! }
//! assert_eq!(text, ", world.");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate has two seams. [`backend`] is where engines that Exsa schedules plug in, at the level of logits;
//! [`generator`] is what applications talk to, at the level of tokens. It needs no async runtime, has no global
//! state and no `unsafe`.
#![forbid(unsafe_code)]

pub mod backend;
pub mod batch;
pub mod chat;
pub mod clock;
pub mod detokenizer;
pub mod engine;
pub mod error;
pub mod finish;
pub mod generator;
pub mod gguf;
mod in_flight;
mod intake;
mod interrupt;
pub mod kv;
mod mailbox;
#[cfg(feature = "metrics")]
mod metrics;
pub mod model_info;
pub mod prefix;
pub mod priority;
pub mod queue;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod scripted;
mod sequence;
pub mod stats;
mod step;
pub mod stop;
pub mod stream;
pub mod token;
pub mod tokenizer;
mod waiting;

pub use chat::Message;
pub use engine::{Engine, EngineOptions, Shutdown};
pub use finish::{FinishReason, RequestError, Usage};
pub use generator::{Generator, SubmitError};
pub use prefix::PrefixCacheOptions;
pub use priority::Priority;
pub use request::{Prompt, Request};
pub use sampler::SamplingParams;
pub use scheduler::Mode;
pub use step::EngineLoop;
pub use stream::{Event, TokenStream};
pub use token::{SeqId, TokenId};
