//! Rules by which workers are restarted and given up.

use std::time::Duration;

/// Limits of restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// Pause before the first restart; doubled with each further one. 100 ms by default.
    pub backoff_min: Duration,
    /// Maximum pause; 30 s by default.
    pub backoff_max: Duration,
    /// Time of service after which the pause is the first again; 30 s by default.
    pub good_service: Duration,
    /// Restarts within [`window`](Self::window) after which the worker is given up; 10 by default. `None`
    /// never gives up.
    pub restarts_max: Option<usize>,
    /// Time over which restarts count; 5 minutes by default.
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
    /// The default policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the first and the maximum pause before a restart.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.backoff_min, self.backoff_max) = (min, max);
        self
    }

    /// Sets the time of service after which the pause is the first again.
    #[must_use]
    pub fn good_service(mut self, time: Duration) -> Self {
        self.good_service = time;
        self
    }

    /// Sets the restarts within `window` after which a worker is given up; `None` never gives up.
    #[must_use]
    pub fn restarts_max(mut self, restarts: impl Into<Option<usize>>, window: Duration) -> Self {
        (self.restarts_max, self.window) = (restarts.into(), window);
        self
    }
}

/// Times after which a worker is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Time for loading without progress; 60 s by default. It is also the time for the first pass, whose cost
    /// is not known.
    pub start: Duration,
    /// Time without progress or sign of life that is always allowed; 2 s by default. A pass may also take ten
    /// times its expected cost.
    pub stall_min: Duration,
    /// Time for requests to end before a stop or a restart on demand; 30 s by default.
    pub drain: Duration,
    /// Time for the process to end when it was asked to; 2 s by default.
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
    /// The default times.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time for loading without progress.
    #[must_use]
    pub fn start(mut self, time: Duration) -> Self {
        self.start = time;
        self
    }

    /// Sets the time without progress that is always allowed.
    #[must_use]
    pub fn stall_min(mut self, time: Duration) -> Self {
        self.stall_min = time;
        self
    }

    /// Sets the time for requests to end before a stop or a restart on demand.
    #[must_use]
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// Sets the time for the process to end when it was asked to.
    #[must_use]
    pub fn stop(mut self, time: Duration) -> Self {
        self.stop = time;
        self
    }
}
