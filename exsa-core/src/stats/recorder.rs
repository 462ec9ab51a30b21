//! Records an engine's statistics, and publishes them to the `metrics` facade if that feature is on.

use super::EngineStats;
use std::time::Duration;

/// The statistics of an engine, and their handles on the `metrics` facade.
pub(crate) struct Recorder {
    pub(crate) stats: EngineStats,
    #[cfg(feature = "metrics")]
    facade: crate::stats::metrics::Facade,
}

impl Recorder {
    /// Creates zeroed statistics for an engine on the model of this name.
    pub(crate) fn new(model: &str) -> Self {
        #[cfg(not(feature = "metrics"))]
        let _ = model;
        Self {
            stats: EngineStats::default(),
            #[cfg(feature = "metrics")]
            facade: crate::stats::metrics::Facade::new(model),
        }
    }

    pub(crate) fn queue_time(&mut self, time: Duration) {
        self.stats.queue_time.record(time);
        #[cfg(feature = "metrics")]
        self.facade.queue_time.record(time);
    }

    pub(crate) fn first_token(&mut self, time: Duration) {
        self.stats.time_to_first_token.record(time);
        #[cfg(feature = "metrics")]
        self.facade.time_to_first_token.record(time);
    }

    pub(crate) fn inter_token(&mut self, time: Duration) {
        self.stats.inter_token.record(time);
        #[cfg(feature = "metrics")]
        self.facade.inter_token.record(time);
    }

    /// Publishes the current values.
    pub(crate) fn publish(&mut self) {
        #[cfg(feature = "metrics")]
        self.facade.publish(&self.stats);
    }
}
