//! An HTTP server on the Exsa inference engine.
//!
//! [`router`] turns any [`Generator`] into an axum [`Router`], which a host
//! mounts in its own server; the binary `exsa-server` serves it alone.
//!
//! ```
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions};
//! use exsa_server::{ServerOptions, router};
//! use std::sync::Arc;
//!
//! let engine = Engine::start(ScriptedModel::echo("Hello.").shared(), EngineOptions::default())?;
//! let app: axum::Router = router(Arc::new(engine), ServerOptions::default());
//! # let _ = app;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | path | form |
//! |---|---|
//! | `POST /v1/chat/completions` | OpenAI's chat completions, also as server-sent events |
//! | `POST /v1/completions` | OpenAI's completions: a text, token ids, or a list of either |
//! | `POST /v1/embeddings` | OpenAI's embeddings, as numbers or base64 |
//! | `POST /v1/rerank`, `/rerank` | Jina's rerank |
//! | `POST /v1/messages`, `/v1/messages/count_tokens` | Anthropic's messages, also as server-sent events |
//! | `POST /api/chat`, `/api/generate`, `/api/embed`, `/api/show`; `GET /api/tags`, `/api/ps`, `/api/version` | Ollama's API, streams as lines of JSON |
//! | `GET /v1/models`, `/v1/models/{id}` | OpenAI's models |
//! | `POST /v1/tokenize`, `/v1/detokenize` | token ids of a text, and back; also without `/v1` |
//! | `GET /health`, `/health/live`, `/health/ready` | health of the process and of the engine |
//! | `GET /metrics` | counters in Prometheus' text format |
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

mod anthropic;
mod body;
mod error;
mod health;
pub mod listener;
mod metrics;
mod ollama;
mod openai;
mod options;
mod origin;
mod state;
mod stream;
mod tokens;

pub use error::ApiError;
pub use openai::responses::store::StoredResponses;
pub use options::ServerOptions;
pub use state::Readiness;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use exsa_core::Generator;
use state::AppState;
use std::sync::Arc;

/// The examples of `docs/server.md`, which the documentation tests compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/server.md")]
pub struct Guide;

/// The server's routes over `generator`.
pub fn router(generator: Arc<dyn Generator>, options: ServerOptions) -> Router {
    router_with(generator, options, Readiness::default())
}

/// Like [`router`], with a switch by which the host announces a drain to load balancers.
pub fn router_with(generator: Arc<dyn Generator>, options: ServerOptions, readiness: Readiness) -> Router {
    let state = Arc::new(AppState::new(generator, options, readiness));
    Router::new()
        .route("/v1/chat/completions", post(openai::chat::complete))
        .route("/v1/completions", post(openai::completions::complete))
        .route("/v1/responses", post(openai::responses::create))
        .route("/v1/responses/{id}", get(openai::responses::show).delete(openai::responses::delete))
        .route("/v1/responses/{id}/cancel", post(openai::responses::cancel))
        .route("/v1/responses/{id}/input_items", get(openai::responses::input_items))
        .route("/v1/embeddings", post(openai::embeddings::embed))
        .route("/v1/rerank", post(openai::rerank::rerank))
        .route("/rerank", post(openai::rerank::rerank))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::show))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(ollama::embed))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/version", get(ollama::version))
        .route("/v1/tokenize", post(tokens::tokenize))
        .route("/tokenize", post(tokens::tokenize))
        .route("/v1/detokenize", post(tokens::detokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/health", get(health::ready))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), origin::check))
        .layer(DefaultBodyLimit::max(state.options.body_bytes_max))
        .with_state(state)
}
