//! An HTTP server on the Exsa inference engine.
//!
//! [`router`] turns any [`Generator`] into an axum [`Router`], to mount in an existing server; the binary
//! `exsa-server` serves it by itself.
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
//! | `POST /v1/chat/completions` | OpenAI's chat completions, optionally as server-sent events |
//! | `POST /v1/completions` | OpenAI's completions: a text, token ids, or a list of either |
//! | `POST /v1/responses`, `GET` and `DELETE /v1/responses/{id}` | OpenAI's responses, optionally as server-sent events |
//! | `POST /v1/embeddings` | OpenAI's embeddings, as numbers or base64 |
//! | `POST /v1/rerank`, `/rerank` | Jina's rerank |
//! | `POST /v1/messages`, `/v1/messages/count_tokens` | Anthropic's messages, optionally as server-sent events |
//! | `POST /api/chat`, `/api/generate`, `/api/embed`, `/api/show`; `GET /api/tags`, `/api/ps`, `/api/version` | Ollama's API, streams as NDJSON |
//! | `POST /api/pull`, `DELETE /api/delete` | fetches and deletes models of Hugging Face; needs a folder in `[pull]` and the scope `models` |
//! | `GET /v1/models`, `/v1/models/{id}` | OpenAI's models |
//! | `/v1/models/list`, `active`, `events`, `load`, `unload`, `reload`, `sleep`, `wake`, `cancel`, `mode` | model lifecycle, with a [registry](models::Models) |
//! | `POST /v1/tokenize`, `/v1/detokenize` | tokenization; also without `/v1` |
//! | `POST /completion`, `/infill`, `/apply-template`, `/embedding`; `GET /props`, `/slots` | llama-server's API |
//! | `GET /openapi.json` | the routes as an OpenAPI document |
//! | `GET /health`, `/health/live`, `/health/ready` | health of the process and of the engine |
//! | `GET /metrics` | metrics in Prometheus' text format |
//! | `GET /kv_event_sources` | addresses of prefix cache events, if enabled |
//! | `GET /v1/stats` | the same figures as JSON |
//! | `GET /`, `/assets/…` | a web page: chat, and a live view of the server |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

pub mod access;
mod apis;
pub mod audit;
pub mod cli;
pub mod config;
#[cfg(feature = "kv-events")]
pub mod fleet;
#[cfg(feature = "grpc")]
mod grpc;
mod http;
mod inference;
pub mod listener;
mod live;
pub mod models;
mod observe;
mod options;
mod page;
pub mod quota;
pub mod reload;
mod server;
mod state;
#[cfg(feature = "otel")]
pub mod telemetry;
#[cfg(not(feature = "otel"))]
#[path = "telemetry/off.rs"]
mod telemetry;
#[cfg(feature = "tls")]
pub mod tls;

pub use apis::openai::responses::store::StoredResponses;
pub use http::context::RequestContext;
pub use http::error::ApiError;
pub use live::Live;
pub use observe::metrics::{MetricsAlias, MetricsConfig};
pub use options::ServerOptions;
pub use server::Server;
pub use state::Readiness;

use axum::Router;
use exsa_core::Generator;
use std::sync::Arc;

/// Compiles the examples of `docs/server.md` as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/server.md")]
pub struct Guide;

/// Returns the server's routes on `generator`: shorthand for [`Server`] with only `options`.
pub fn router(generator: Arc<dyn Generator>, options: ServerOptions) -> Router {
    Server::new(generator).options(options).router()
}

/// Like [`router`], with a switch with which the host announces a drain to load balancers.
pub fn router_with(generator: Arc<dyn Generator>, options: ServerOptions, readiness: Readiness) -> Router {
    Server::new(generator).options(options).readiness(readiness).router()
}
