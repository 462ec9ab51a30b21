//! Scheduling: admission order, KV accounting, prefix cache, and the step planner.
//!
//! Internal to the engine. Types are public for simulations and benchmarks and follow no version promise, except those that
//! the crate root and [`crate::queue`] re-export.

pub mod kv;
pub mod prefix;
pub mod queue;
pub(crate) mod sched_request;
pub(crate) mod scheduler;

pub use sched_request::{History, SchedRequest};
pub use scheduler::{
    Admitted, Mode, PAUSE_GRACE, Plan, Preset, Scheduler, SchedulerOptions, StepCost, Work, WorkKind, budget,
};
