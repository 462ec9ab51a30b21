//! Streams of answers: one thread per sent request.

mod answer;
mod control;
mod queue;
mod run;

pub(crate) use answer::Answer;
pub(crate) use control::Control;
pub(crate) use queue::{Job, Queue};
pub(crate) use run::Runner;
