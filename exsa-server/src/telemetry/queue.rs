//! Bounded queue between request threads and the exporter.

use super::counts::{self, Counts};
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanProcessor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Number of spans between their end and their export.
#[derive(Debug)]
pub(super) struct Waiting {
    spans: AtomicUsize,
    max: usize,
}

impl Waiting {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { spans: AtomicUsize::new(0), max })
    }

    fn enter(&self) -> bool {
        let add = |spans| (spans < self.max).then_some(spans + 1);
        self.spans.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    pub(super) fn leave(&self, spans: usize) {
        self.spans.fetch_sub(spans, Ordering::Relaxed);
    }
}

/// Drops and counts spans if the queue is full, before the batch processor, which does not report its drops.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) batches: BatchSpanProcessor,
    pub(super) waiting: Arc<Waiting>,
    pub(super) counts: Counts,
}

impl SpanProcessor for Gate {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        match self.waiting.enter() {
            true => self.batches.on_end(span),
            false => self.counts.dropped(counts::QUEUE_FULL, 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}
