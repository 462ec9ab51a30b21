//! Detects engines that make no progress while requests wait.

use exsa_core::stats::EngineStats;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Observes the statistics of engines, by model, and reports stalled ones.
///
/// Progress is a completed step or pass, or an ended request. An engine without work need not make progress;
/// requests whose client does not read are not work.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    models: BTreeMap<Arc<str>, Seen>,
}

/// The last progress of an engine.
#[derive(Debug)]
struct Seen {
    progress: u64,
    /// Time at which work without further progress was first observed; `None` while there is no work.
    since: Option<Duration>,
}

impl Watchdog {
    /// Processes statistics at the time `now`, and returns the models that have been stalled for longer than
    /// `limit`. It is correct at any call interval; a longer one only delays detection.
    pub(crate) fn observe(
        &mut self,
        stats: impl IntoIterator<Item = (Arc<str>, EngineStats)>,
        now: Duration,
        limit: Duration,
    ) -> Vec<Arc<str>> {
        let mut stalled = Vec::new();
        for (model, stats) in stats {
            let progress = progress(&stats);
            let seen = self.models.entry(model.clone()).or_insert(Seen { progress, since: None });
            if seen.progress != progress || !has_work(&stats) {
                *seen = Seen { progress, since: None };
            }
            if has_work(&stats) && now.saturating_sub(*seen.since.get_or_insert(now)) > limit {
                stalled.push(model);
            }
        }
        stalled
    }
}

fn progress(stats: &EngineStats) -> u64 {
    stats.steps.wrapping_add(stats.embed_passes).wrapping_add(stats.finished)
}

fn has_work(stats: &EngineStats) -> bool {
    let scheduler = &stats.scheduler;
    scheduler.waiting > 0 || scheduler.running > scheduler.paused || stats.embeds_open > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn stats(steps: u64, running: usize, paused: usize, waiting: usize) -> EngineStats {
        let mut stats = EngineStats::default();
        stats.steps = steps;
        stats.scheduler.running = running;
        stats.scheduler.paused = paused;
        stats.scheduler.waiting = waiting;
        stats
    }

    /// Models that stand still after these statistics at these seconds.
    fn stalled(samples: &[(u64, EngineStats)]) -> usize {
        let mut watchdog = Watchdog::default();
        let observed = samples.iter().map(|(second, stats)| {
            watchdog.observe([("a".into(), *stats)], Duration::from_secs(*second), LIMIT).len()
        });
        observed.last().unwrap_or(0)
    }

    #[test]
    fn work_without_steps_is_a_stall() {
        assert_eq!(stalled(&[(0, stats(5, 1, 0, 0)), (60, stats(5, 1, 0, 0))]), 0, "at the limit");
        assert_eq!(stalled(&[(0, stats(5, 1, 0, 0)), (61, stats(5, 1, 0, 0))]), 1);
        assert_eq!(stalled(&[(0, stats(5, 0, 0, 3)), (61, stats(5, 0, 0, 3))]), 1, "none is admitted");
        let mut embeds = stats(0, 0, 0, 0);
        embeds.embeds_open = 1;
        assert_eq!(stalled(&[(0, embeds), (61, embeds)]), 1);
    }

    #[test]
    fn progress_and_idleness_are_none() {
        assert_eq!(stalled(&[(0, stats(5, 1, 0, 0)), (61, stats(6, 1, 0, 0))]), 0);
        assert_eq!(stalled(&[(0, stats(5, 0, 0, 0)), (1000, stats(5, 0, 0, 0))]), 0);
        assert_eq!(stalled(&[(0, stats(5, 0, 0, 0)), (1000, stats(5, 1, 0, 0))]), 0, "it has just begun");
        assert_eq!(
            stalled(&[(0, stats(5, 1, 1, 0)), (61, stats(5, 1, 1, 0))]),
            0,
            "its client does not read"
        );
    }

    #[test]
    fn a_stall_ends_with_the_next_step() {
        let samples = [
            (0, stats(5, 1, 0, 0)),
            (61, stats(5, 1, 0, 0)),
            (62, stats(6, 1, 0, 0)),
            (63, stats(6, 1, 0, 0)),
        ];
        assert_eq!((stalled(&samples[..2]), stalled(&samples)), (1, 0));
    }

    #[test]
    fn models_stand_still_one_by_one() {
        let mut watchdog = Watchdog::default();
        let both = |steps| [("a".into(), stats(steps, 1, 0, 0)), ("b".into(), stats(7, 1, 0, 0))];
        assert!(watchdog.observe(both(1), Duration::ZERO, LIMIT).is_empty());
        assert_eq!(watchdog.observe(both(2), LIMIT * 2, LIMIT), ["b".into()]);
    }

    #[test]
    fn another_limit_holds_at_once() {
        let mut watchdog = Watchdog::default();
        let mut observe = |second, limit| {
            let still = [("a".into(), stats(5, 1, 0, 0))];
            watchdog.observe(still, Duration::from_secs(second), limit).len()
        };
        assert_eq!((observe(0, LIMIT), observe(30, LIMIT), observe(30, LIMIT / 3)), (0, 0, 1));
        assert_eq!(observe(70, LIMIT * 2), 0);
    }
}
