//! Remote engines over HTTP as [`Generator`](exsa_core::Generator)s: vLLM, SGLang, TensorRT-LLM, Triton,
//! llama-server, and any server with OpenAI's API.
//!
//! ```no_run
//! use exsa_backend_remote::{RemoteEngine, RemoteOptions};
//! use exsa_core::{Generator, Request};
//!
//! let engine = RemoteEngine::connect(RemoteOptions::new("http://10.0.0.7:8000").api_key("secret"))?;
//! let mut answer = engine.submit(Request::text("Once upon a time").max_tokens(64))?;
//! for piece in answer.text() {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With a [tokenizer](RemoteOptions::tokenizer) of the model, prompts are rendered and tokenized locally,
//! token ids are exchanged, and text, stop strings, reasoning and tool calls are handled by the code of the
//! in-process engine. Without it, the engine's text is used.
//!
//! A setting of a request that an engine cannot honour is refused with
//! [`SubmitError::Unsupported`](exsa_core::SubmitError::Unsupported), never dropped. `docs/remote.md` lists
//! fields and abilities of each [`Dialect`].
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

/// Compiles the example of `docs/remote.md` as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../../docs/remote.md")]
pub struct Guide;

mod capabilities;
mod client;
mod dialect;
mod embed;
mod engine;
mod error;
mod options;
pub mod sse;
mod stream;
mod tokenizer;

pub use capabilities::Capabilities;
pub use dialect::Dialect;
#[doc(hidden)]
pub use dialect::read_event;
pub use engine::RemoteEngine;
pub use error::{ConnectError, RemoteError};
pub use options::{RemoteOptions, TokenizerSource};
