//! Worker processes.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

#[doc(hidden)]
pub mod frame;
mod output;
mod sandbox;
mod serve;
mod setup;
mod transport;

pub use sandbox::{SandboxMode, SandboxOptions, SandboxReport};
pub use serve::run_if_worker;
pub use setup::Setup;
