//! The gRPC services `vllm.Inference` and `vllm.Control`, and the standard health service, over any
//! [`Generator`](exsa_core::Generator).
//!
//! Routers that front vLLM by gRPC can so front an Exsa engine or server: NVIDIA Dynamo does it by its stock
//! sidecar. Messages and stubs are those of the crate `vllm-proto`, which the engine's own frontend uses.
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
//! A server with keys, quotas and an audit log puts these between the services and the generator by its own
//! [`Host`].
//!
//! | method | behaviour |
//! |---|---|
//! | `Inference.Generate`, `GenerateStream` | a prompt of text or of token ids, continued; the end of the call cancels |
//! | `Control.GetServerInfo`, `GetModelInfo` | limits and name of the one model that the services tell |
//! | `Control.Abort` | cancels the caller's own requests by their ids |
//! | `Control.GetKvEventSources` | addresses that the [`Host`] tells; none for a generator alone |
//! | `Control.ListLoras`, `IsPaused`, `IsSleeping` | none, no, no |
//! | `Control.Shutdown` | `FAILED_PRECONDITION`: the engine's process is not the services' own |
//! | other methods of `Control` | `UNIMPLEMENTED` |
//! | `grpc.health.v1.Health` | for both services and for the server as a whole |
//!
//! Fields that the engine cannot honour are refused with `INVALID_ARGUMENT` where they would change an
//! answer: media, adapters, transfers of KV, lists of allowed tokens, banned sequences of several tokens,
//! budgets of reasoning. Hints (`kv_hints`, `session_id`, `watermarking`) are accepted and have no effect.
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

/// The implementation of gRPC, whose types the services have.
pub use tonic;

/// Messages and stubs of the standard health service.
pub use tonic_health::pb as health_proto;
