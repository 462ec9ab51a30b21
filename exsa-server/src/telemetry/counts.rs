//! Counts of exported and dropped spans.

use crate::observe::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Cause of a loss: the queue was full.
pub(super) const QUEUE_FULL: &str = "queue_full";

/// Cause of a loss: the collector could not be reached, or refused the batch.
pub(super) const EXPORT_FAILED: &str = "export_failed";

/// Cause of a loss: the collector rejected spans of a batch.
pub(super) const REJECTED: &str = "rejected";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DropLabels {
    reason: &'static str,
}

/// Counts of spans. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    exported: Counter,
    dropped: Family<DropLabels, Counter>,
}

impl Counts {
    pub(super) fn new() -> Self {
        let counts = Self::default();
        // A counter that exists from the start has a rate from its first loss.
        for reason in [QUEUE_FULL, EXPORT_FAILED, REJECTED] {
            counts.dropped(reason, 0);
        }
        counts
    }

    pub(super) fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    /// Counts lost spans by cause.
    pub(super) fn dropped(&self, reason: &'static str, spans: u64) {
        self.dropped.get_or_create(&DropLabels { reason }).inc_by(spans);
    }

    pub(super) fn register(&self, metrics: &Metrics) {
        let help = "Spans that the collector accepted";
        metrics.register("exsa_telemetry_exported_spans", help, self.exported.clone());
        metrics.register("exsa_telemetry_dropped_spans", "Spans that were lost", self.dropped.clone());
    }
}
