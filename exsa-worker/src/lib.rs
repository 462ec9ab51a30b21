//! Worker processes: an engine in a separate process, sandboxed, supervised and restarted.
//!
//! A [`Worker`] is a [`Generator`](exsa_core::Generator) over one process, a [`WorkerPool`] over several
//! processes with the same model. In a pool, an answer whose process is lost continues in another one, from
//! the tokens that the consumer already has. The worker process is the host's own program, started again:
//!
//! ```no_run
//! use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
//! use exsa_core::{Engine, Generator, Request};
//! use exsa_worker::{WorkerOptions, WorkerPool, WorkerPoolOptions};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Returns at once in the host, and never in a worker.
//!     exsa_worker::run_if_worker(|setup| {
//!         let model = ScriptedModel::echo("Hello.").shared(); // a real program: backend.load(...)
//!         Ok(Engine::start(model, setup.engine)?)
//!     });
//!     let worker = WorkerOptions::new().tokenizer(Arc::new(ByteTokenizer::new())); // or .model("model.gguf")
//!     let pool = WorkerPool::start(WorkerPoolOptions::new(worker).workers(3))?;
//!     pool.wait_ready(Duration::from_secs(60))?;
//!     println!("{}", pool.submit(Request::text("Hi"))?.complete()?.text);
//!     Ok(())
//! }
//! ```
//!
//! `docs/workers.md` states the guarantees, and describes protocol, supervision and sandbox.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

#[doc(hidden)]
pub mod frame;
mod host;
mod loader;
mod output;
mod pool;
mod sandbox;
mod serve;
mod setup;
mod transport;

pub use host::{ExitCause, RestartPolicy, Timeouts, Worker, WorkerOptions, WorkerState, WorkerStatus};
pub use loader::WorkerLoader;
pub use pool::{WorkerPool, WorkerPoolOptions};
pub use sandbox::{SandboxMode, SandboxOptions, SandboxReport};
pub use serve::run_if_worker;
pub use setup::Setup;
