//! Settings of a pool.

use crate::breaker::BreakerOptions;
use exsa_core::queue::FairOptions;
use std::time::Duration;

/// Settings of a [`Pool`](crate::Pool).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Maximum requests waiting for a member; 1,024 by default. Further requests are refused with
    /// [`SubmitError::QueueFull`](exsa_core::SubmitError::QueueFull).
    pub queue_max: usize,
    /// Maximum waiting requests per user; `None`, the default, sets no limit but `queue_max`.
    pub user_queue_max: Option<usize>,
    /// Settings of the queue's classes and shares.
    pub fair: FairOptions,
    /// Losses of a member in which a request may have been running before it fails with
    /// [`RequestError::Crashed`](exsa_core::RequestError::Crashed), so that a prompt that crashes engines
    /// cannot end one after another; 2 by default. `None` sets no limit.
    pub crashes_max: Option<u32>,
    /// Time for which members are tried that cannot be reached or have no room, before a request fails with
    /// [`RequestError::Unavailable`](exsa_core::RequestError::Unavailable); 30 s by default.
    pub unavailable_max: Duration,
    /// Time without a first token after which a request is also submitted to a second member; the answer that
    /// begins first counts. `None`, the default, turns it off.
    pub hedge_after: Option<Duration>,
    /// When a member that fails gets no requests.
    pub breaker: BreakerOptions,
    /// Unread events in a stream at which its member pauses the request; 1,024 by default.
    pub stream_events_max: usize,
    /// Requests more than the least loaded member may have where a member has computed the prefix; 4 by
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
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum requests waiting for a member.
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

    /// Sets the settings of the queue's classes and shares.
    #[must_use]
    pub fn fair(mut self, fair: FairOptions) -> Self {
        self.fair = fair;
        self
    }

    /// Sets the losses after which a request is not tried again.
    #[must_use]
    pub fn crashes_max(mut self, crashes: impl Into<Option<u32>>) -> Self {
        self.crashes_max = crashes.into();
        self
    }

    /// Sets the time for which unavailable members are tried.
    #[must_use]
    pub fn unavailable_max(mut self, time: Duration) -> Self {
        self.unavailable_max = time;
        self
    }

    /// Sets the time without a first token after which a second member is tried.
    #[must_use]
    pub fn hedge_after(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.hedge_after = time.into();
        self
    }

    /// Sets when a member that fails gets no requests.
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
