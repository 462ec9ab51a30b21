//! Scenarios of the scheduler, one per file, on the scripted backend with fake time. Their figures are
//! printed by: `cargo nextest run -p exsa-core --test scheduler --no-capture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bare;
mod bounded_preemption;
mod deadlines;
mod driver;
mod fairness;
mod long_prompt;
mod modes;
mod preemption;
mod prefix_cache;
mod prompt_memory;
mod prompt_store;
mod queue_answers;
mod speculation;
mod starvation;
#[path = "../stores/mod.rs"]
mod stores;
mod transforms;
mod vtc_bound;
mod work_conservation;
