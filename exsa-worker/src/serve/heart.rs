//! Heartbeats.

use super::service::Service;
use crate::frame::{Beat, FromWorker};
use crate::setup::Progress;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// Interval between heartbeats.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);

/// Sends heartbeats forever.
pub(super) fn beat(service: &Arc<Service>, progress: &Progress) {
    let mut watch = Watch { seen: (0, 0), since: Instant::now() };
    loop {
        let stats = service.engine().map(exsa_core::Engine::stats).unwrap_or_default();
        let in_engine = service.in_engine();
        let steps = stats.steps + stats.embed_passes;
        let signs = (steps, service.counters.sent.load(Ordering::Relaxed));
        let scheduler = &stats.scheduler;
        let all_paused = scheduler.paused > 0 && scheduler.paused == scheduler.running;
        let idle = watch.idle(signs, in_engine == 0 || all_paused);
        // If the host does not read, heartbeats stop when the output is full.
        if !service.output().is_full() {
            service.send(&FromWorker::Beat(Beat {
                loaded: progress.done.load(Ordering::Relaxed),
                to_load: progress.total.load(Ordering::Relaxed),
                received: service.counters.received.load(Ordering::Relaxed),
                in_engine,
                preparing: service.counters.preparing.load(Ordering::Relaxed),
                steps,
                idle_us: u64::try_from(idle.as_micros()).unwrap_or(u64::MAX),
                stats,
            }));
        }
        service.requests.reap();
        thread::sleep(INTERVAL);
    }
}

/// Measures the time without progress.
struct Watch {
    /// Count of passes, and of event groups.
    seen: (u64, u64),
    since: Instant,
}

impl Watch {
    /// Returns the time without progress while there is work to do.
    fn idle(&mut self, signs: (u64, u64), nothing_to_do: bool) -> Duration {
        let now = Instant::now();
        if nothing_to_do || signs != self.seen {
            (self.seen, self.since) = (signs, now);
        }
        now.saturating_duration_since(self.since)
    }
}
