//! Restart policy and timeouts.

use std::time::Duration;

/// Restart policy of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// Delay before the first restart, doubled for each further one; 100 ms by default.
    pub backoff_min: Duration,
    /// Maximum delay; 30 s by default.
    pub backoff_max: Duration,
    /// Serving time after which the delay is reset; 30 s by default.
    pub good_service: Duration,
    /// Restarts within [`window`](Self::window) after which the worker is given up; 10 by default. With
    /// `None` it is never given up.
    pub restarts_max: Option<usize>,
    /// Time window over which restarts are counted; 5 minutes by default.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            good_service: Duration::from_secs(30),
            restarts_max: Some(10),
            window: Duration::from_secs(300),
        }
    }
}

impl RestartPolicy {
    /// Creates the default policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the initial and the maximum delay before a restart.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.backoff_min, self.backoff_max) = (min, max);
        self
    }

    /// Sets the serving time after which the delay is reset.
    #[must_use]
    pub fn good_service(mut self, time: Duration) -> Self {
        self.good_service = time;
        self
    }

    /// Sets the restarts within `window` after which a worker is given up; `None` never gives it up.
    #[must_use]
    pub fn restarts_max(mut self, restarts: impl Into<Option<usize>>, window: Duration) -> Self {
        (self.restarts_max, self.window) = (restarts.into(), window);
        self
    }
}

/// Timeouts of supervision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Timeout for loading without progress; 60 s by default. It also applies to the first pass, whose cost
    /// is unknown.
    pub start: Duration,
    /// Minimum timeout without progress or heartbeat; 2 s by default. A pass may also take ten times its
    /// expected cost.
    pub stall_min: Duration,
    /// Time for requests to end before a requested stop or restart; 30 s by default.
    pub drain: Duration,
    /// Time for the process to exit after it was asked to; 2 s by default.
    pub stop: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            stall_min: Duration::from_secs(2),
            drain: Duration::from_secs(30),
            stop: Duration::from_secs(2),
        }
    }
}

impl Timeouts {
    /// Creates the default timeouts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the timeout for loading without progress.
    #[must_use]
    pub fn start(mut self, time: Duration) -> Self {
        self.start = time;
        self
    }

    /// Sets the minimum timeout without progress.
    #[must_use]
    pub fn stall_min(mut self, time: Duration) -> Self {
        self.stall_min = time;
        self
    }

    /// Sets the time for requests to end before a requested stop or restart.
    #[must_use]
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// Sets the time for the process to exit after it was asked to.
    #[must_use]
    pub fn stop(mut self, time: Duration) -> Self {
        self.stop = time;
        self
    }
}
