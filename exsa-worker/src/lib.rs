//! Worker processes.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

#[doc(hidden)]
pub mod frame;
mod host;
mod output;
mod pool;
mod sandbox;
mod serve;
mod setup;
mod transport;

pub use host::{ExitCause, RestartPolicy, Timeouts, Worker, WorkerOptions, WorkerState, WorkerStatus};
pub use pool::{WorkerPool, WorkerPoolOptions};
pub use sandbox::{SandboxMode, SandboxOptions, SandboxReport};
pub use serve::run_if_worker;
pub use setup::Setup;
