//! Logs an unreachable collector: once, then at growing intervals.

use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Interval between the first two log lines about an outage, doubled for each further one.
const INTERVAL: Duration = Duration::from_secs(60);

/// Maximum interval between lines.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// An outage, from the first lost batch to the next accepted one.
#[derive(Debug)]
pub(super) struct Outage {
    since: Instant,
    lost: u64,
    next: Instant,
    interval: Duration,
}

impl Outage {
    /// Records lost spans at the time `now`. Returns whether a log line is due.
    pub(super) fn failed(outage: &mut Option<Self>, spans: u64, error: &str, now: Instant) -> bool {
        let current = outage.get_or_insert(Self { since: now, lost: 0, next: now, interval: INTERVAL });
        current.lost += spans;
        if now < current.next {
            return false;
        }
        warn!(error, lost = current.lost, "traces cannot be exported");
        current.next = now + current.interval;
        current.interval = (current.interval * 2).min(INTERVAL_MAX);
        true
    }

    /// Records an accepted batch.
    pub(super) fn ended(outage: &mut Option<Self>, now: Instant) {
        if let Some(Self { since, lost, .. }) = outage.take() {
            let seconds = now.duration_since(since).as_secs();
            info!(lost, seconds, "traces are exported again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_at_growing_intervals() {
        let (mut outage, begun) = (None, Instant::now());
        let mut lines = Vec::new();
        for second in (0..20_000).step_by(5) {
            let now = begun + Duration::from_secs(second);
            if Outage::failed(&mut outage, 1, "refused", now) {
                lines.push(second);
            }
        }
        assert_eq!(lines, [0, 60, 180, 420, 900, 1860, 3780, 7380, 10_980, 14_580, 18_180]);
        assert_eq!(outage.as_ref().unwrap().lost, 4000);
        let later = begun + Duration::from_secs(20_000);
        Outage::ended(&mut outage, later);
        assert!(Outage::failed(&mut outage, 1, "refused", later), "the next outage is logged at once");
    }
}
