//! The gRPC services `vllm.Inference` and `vllm.Control`, and the standard health service, for any
//! [`Generator`](exsa_core::Generator).
//!
//! Routers that talk to vLLM over gRPC can use an Exsa engine or server in its place; NVIDIA Dynamo does so
//! through its stock sidecar. Messages and stubs are those of the crate `vllm-proto`, which vLLM's own
//! frontend uses.
//!
//! ```
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions};
//! use exsa_grpc::{GrpcOptions, Services};
//! use std::sync::Arc;
//!
//! let engine = Engine::start(ScriptedModel::echo("Hello.").shared(), EngineOptions::default())?;
//! let options = GrpcOptions::new().model_id("/srv/models/tiny".to_owned());
//! let services = Services::new(Arc::new(engine), options);
//! let routes: tonic::service::Routes = services.routes();
//! # let _ = routes;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A server with keys, quotas and an audit log implements [`Host`] to apply these between the services and
//! the generator.
//!
//! | method | behaviour |
//! |---|---|
//! | `Inference.Generate`, `GenerateStream` | completes a prompt of text or token ids; ending the call cancels the request |
//! | `Control.GetServerInfo`, `GetModelInfo` | limits and name of the one served model |
//! | `Control.Abort` | cancels the caller's own requests by their ids |
//! | `Control.GetKvEventSources` | addresses reported by the [`Host`]; none for a plain generator |
//! | `Control.ListLoras`, `IsPaused`, `IsSleeping` | none, no, no |
//! | `Control.Shutdown` | `FAILED_PRECONDITION`: the services do not own the engine's process |
//! | other methods of `Control` | `UNIMPLEMENTED` |
//! | `grpc.health.v1.Health` | for both services and for the server as a whole |
//!
//! Fields that would change an answer and that the engine does not support are refused with
//! `INVALID_ARGUMENT`: media, adapters, KV transfer, allowed-token lists, banned sequences of several tokens,
//! reasoning budgets. Hints (`kv_hints`, `session_id`, `watermarking`) are accepted and have no effect.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

mod answer;
mod control;
mod deadline;
mod health;
mod host;
mod inference;
mod options;
mod request;
mod running;
mod services;
mod status;

pub use control::Control;
pub use health::Health;
pub use host::{Answer, Host, Served};
pub use inference::Inference;
pub use options::GrpcOptions;
pub use services::Services;

/// Messages and stubs of the services.
pub use vllm_proto as proto;

/// The gRPC implementation, whose types appear in the API of the services.
pub use tonic;

/// Messages and stubs of the standard health service.
pub use tonic_health::pb as health_proto;
