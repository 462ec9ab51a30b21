//! Settings of a pool.

use crate::breaker::BreakerOptions;
use exsa_core::queue::FairOptions;
use std::time::Duration;

/// Settings of a [`Pool`](crate::Pool).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Maximum waiting requests; 1,024 by default. Further requests are refused with
    /// [`SubmitError::QueueFull`](exsa_core::SubmitError::QueueFull).
    pub queue_max: usize,
    /// Maximum waiting requests per user; `None`, the default, sets no limit beyond `queue_max`.
    pub user_queue_max: Option<usize>,
    /// Settings of classes and shares of the queue.
    pub fair: FairOptions,
    /// Maximum losses of members during which a request was running, before it fails with
    /// [`RequestError::Crashed`](exsa_core::RequestError::Crashed), so that a prompt that crashes engines
    /// cannot crash them all; 2 by default. `None` sets no limit.
    pub crashes_max: Option<u32>,
    /// Time for which a request retries members that are unreachable or at capacity, before it fails with
    /// [`RequestError::Unavailable`](exsa_core::RequestError::Unavailable); 30 s by default.
    pub unavailable_max: Duration,
    /// Hedging: time without a first token after which a request is also submitted to a second member; the
    /// first answer to begin wins. `None`, the default, disables it.
    pub hedge_after: Option<Duration>,
    /// Settings of the members' circuit breakers.
    pub breaker: BreakerOptions,
    /// Unread events of a stream at which its member pauses the request; 1,024 by default.
    pub stream_events_max: usize,
    /// Load, in answers, by which a member with the cached prefix may exceed the least loaded member; 4 by
    /// default.
    pub affinity_slack: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            queue_max: 1024,
            user_queue_max: None,
            fair: FairOptions::default(),
            crashes_max: Some(2),
            unavailable_max: Duration::from_secs(30),
            hedge_after: None,
            breaker: BreakerOptions::default(),
            stream_events_max: 1024,
            affinity_slack: 4,
        }
    }
}

impl PoolOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum waiting requests.
    #[must_use]
    pub fn queue_max(mut self, requests: usize) -> Self {
        self.queue_max = requests;
        self
    }

    /// Sets the maximum waiting requests per user.
    #[must_use]
    pub fn user_queue_max(mut self, requests: impl Into<Option<usize>>) -> Self {
        self.user_queue_max = requests.into();
        self
    }

    /// Sets classes and shares of the queue.
    #[must_use]
    pub fn fair(mut self, fair: FairOptions) -> Self {
        self.fair = fair;
        self
    }

    /// Sets the losses after which a request is not retried.
    #[must_use]
    pub fn crashes_max(mut self, crashes: impl Into<Option<u32>>) -> Self {
        self.crashes_max = crashes.into();
        self
    }

    /// Sets the time for which unavailable members are retried.
    #[must_use]
    pub fn unavailable_max(mut self, time: Duration) -> Self {
        self.unavailable_max = time;
        self
    }

    /// Sets the hedging delay.
    #[must_use]
    pub fn hedge_after(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.hedge_after = time.into();
        self
    }

    /// Sets the circuit breaker.
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerOptions) -> Self {
        self.breaker = breaker;
        self
    }

    /// Sets the unread events at which a request is paused.
    #[must_use]
    pub fn stream_events_max(mut self, events: usize) -> Self {
        self.stream_events_max = events;
        self
    }

    /// Sets the extra load that a cached prefix is worth.
    #[must_use]
    pub fn affinity_slack(mut self, requests: usize) -> Self {
        self.affinity_slack = requests;
        self
    }
}
