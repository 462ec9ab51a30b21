//! Scheduling: admission order, KV accounting, prefix cache, and the step planner.
//!
//! Internal to the engine. Types are public for simulations and benchmarks without any
//! semver guarantee, except the re-exports in the crate root and [`crate::queue`].

pub mod kv;
pub mod prefix;
pub mod queue;
pub(crate) mod sched_request;
pub(crate) mod scheduler;

pub use sched_request::{History, SchedRequest};
pub use scheduler::{
    Admitted, Mode, PAUSE_GRACE, Plan, Preset, Scheduler, SchedulerOptions, StepCost, Work, WorkKind, budget,
};
