//! Embeddings and rerank scores of texts.
//!
//! [`Generator::embed`](crate::Generator::embed) and [`Generator::rerank`](crate::Generator::rerank) take an
//! [`EmbedRequest`] or a [`RerankRequest`] and return a [`Pending`] output, which can be waited for or
//! awaited. Dropping it cancels the request.
//!
//! ```
//! use exsa_core::backend::{Pooling, SessionOptions};
//! use exsa_core::embed::EmbedRequest;
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions};
//!
//! let mut options = EngineOptions::default();
//! options.session.pooling = Some(Pooling::Mean); // a real embedding model says so itself
//! let engine = Engine::start(ScriptedModel::ngram(1).shared(), options)?;
//! let output = engine.embed(EmbedRequest::texts(["a frog", "a toad"]))?.wait()?;
//! for vector in output.embeddings {
//!     println!("{:?}", vector?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod output;
mod pending;
mod request;

pub use output::{DocumentScore, EmbedError, EmbedOutput, RerankOutput};
pub use pending::{Pending, PendingSender, pending};
pub use request::{EmbedInput, EmbedRequest, RerankRequest, Truncate};
