//! Traces over OTLP: one span per HTTP request, with a child span per inference.
//!
//! A request continues the trace of an incoming W3C `traceparent`. Spans never contain prompts, answers or
//! keys. They end on request threads and are exported by a separate thread; if their queue is full they are
//! dropped and counted.

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
