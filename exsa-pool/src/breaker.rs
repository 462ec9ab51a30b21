//! Circuit breaker of a member.

use std::time::Duration;

/// Thresholds and times of the circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// Consecutive failures that open the breaker; 3 by default.
    pub failures_max: u32,
    /// Initial time for which it stays open, doubled each time the trial request fails; 1 s by default.
    pub open_min: Duration,
    /// Maximum time for which it stays open; 30 s by default.
    pub open_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        let (open_min, open_max) = (Duration::from_secs(1), Duration::from_secs(30));
        Self { failures_max: 3, open_min, open_max }
    }
}

impl BreakerOptions {
    /// Sets the number of consecutive failures that open the breaker, at least 1.
    #[must_use]
    pub fn failures_max(mut self, failures: u32) -> Self {
        self.failures_max = failures.max(1);
        self
    }

    /// Sets the minimum and maximum time for which it stays open.
    #[must_use]
    pub fn open(mut self, min: Duration, max: Duration) -> Self {
        (self.open_min, self.open_max) = (min, max.max(min));
        self
    }
}

/// Closed while requests succeed; open after consecutive failures; then half open, with one trial request.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    /// Number of times it opened since the last success.
    opened: u32,
    open_until: Option<Duration>,
    trial: bool,
}

impl Breaker {
    /// Returns whether a request may go to the member.
    pub(crate) fn allows(&self, now: Duration) -> bool {
        match self.open_until {
            None => true,
            Some(until) => now >= until && !self.trial,
        }
    }

    /// Records that a request is sent to the member.
    pub(crate) fn begin(&mut self) {
        self.trial = self.open_until.is_some();
    }

    /// Records that the member returned a token or an answer.
    pub(crate) fn success(&mut self) {
        *self = Self::default();
    }

    /// Records a request that ended without information about the member.
    pub(crate) fn neutral(&mut self) {
        self.trial = false;
    }

    /// Records that the member was lost, or refused a request for its own reasons.
    pub(crate) fn failure(&mut self, now: Duration, options: &BreakerOptions) {
        self.trial = false;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= options.failures_max && self.allows(now) {
            let time = options.open_min.saturating_mul(1 << self.opened.min(20)).min(options.open_max);
            self.open_until = Some(now.saturating_add(time));
            self.opened = self.opened.saturating_add(1);
        }
    }

    /// Returns whether it is open or half open.
    pub(crate) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn opens_after_failures_in_a_row_and_closes_after_a_trial() {
        let options = BreakerOptions::default().failures_max(2).open(S(1), S(3));
        let mut breaker = Breaker::default();
        breaker.failure(S(0), &options);
        breaker.success();
        breaker.failure(S(1), &options);
        assert!(breaker.allows(S(1)), "failures do not follow each other");
        breaker.failure(S(1), &options);
        assert!(!breaker.allows(S(1)) && breaker.is_open());
        assert!(breaker.allows(S(2)));
        breaker.begin();
        assert!(!breaker.allows(S(2)), "one trial at a time");
        breaker.neutral();
        assert!(breaker.allows(S(2)));
        for (at, wait) in [(2, 2), (10, 3), (20, 3)] {
            breaker.begin();
            breaker.failure(S(at), &options);
            assert!(!breaker.allows(S(at + wait) - Duration::from_millis(1)));
            assert!(breaker.allows(S(at + wait)));
        }
        breaker.begin();
        breaker.success();
        assert!(breaker.allows(S(20)) && !breaker.is_open());
    }
}
