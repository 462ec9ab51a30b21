//! The host's side: a worker process as a [`Generator`](exsa_core::Generator).

mod cause;
mod connection;
mod generator;
mod memory;
mod open;
mod options;
mod policy;
mod process;
mod receive;
mod slot;
mod status;
mod step_cost;
mod supervision;
#[cfg(test)]
mod tests;

pub use cause::ExitCause;
pub use generator::Worker;
pub use options::WorkerOptions;
pub use policy::{RestartPolicy, Timeouts};
pub use status::{WorkerState, WorkerStatus};
