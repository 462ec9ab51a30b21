//! Traces over OTLP: one span per HTTP request, and a child of it per inference.
//!
//! A request continues the trace of an incoming W3C `traceparent`. Spans hold facts about the work and never
//! prompts, answers or keys. They end on the threads of requests and are exported from a thread of their own;
//! when their queue is full they are dropped and counted.

mod counts;
mod exporter;
mod inference;
mod outage;
mod provider;
mod queue;
mod request;
mod shutdown;

pub use provider::{Telemetry, TelemetryError};

pub(crate) use inference::InferenceSpan;
pub(crate) use request::RequestSpan;
