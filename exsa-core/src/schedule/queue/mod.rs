//! The order in which waiting requests are admitted.

mod fair;
mod fcfs;

pub use fair::{FairOptions, FairQueue};
pub use fcfs::Fcfs;

use crate::priority::{Priority, UserId};
use crate::schedule::sched_request::SchedRequest;
use crate::token::RequestId;
use std::time::Duration;

/// Decides which waiting request is admitted next.
///
/// # Contract
///
/// - `chosen` returns and `pop` takes the request that the last
///   `choose` selected, until a push or removal. No request starves.
/// - A preempted request is pushed again with its original arrival, and goes before every request of its
///   class that arrived later.
pub trait QueueOrder: Send {
    /// Adds a request at the time `now`.
    fn push(&mut self, request: SchedRequest, now: Duration);

    /// Selects the next request.
    fn choose(&mut self, view: &View<'_>) -> Option<RequestId>;

    /// The selected request.
    fn chosen(&self) -> Option<&SchedRequest>;

    /// Removes and returns the selected request.
    fn pop(&mut self, now: Duration) -> Option<SchedRequest>;

    /// Removes a waiting request; `None` if it does not wait.
    fn remove(&mut self, id: RequestId) -> Option<SchedRequest>;

    /// Number of waiting requests.
    fn len(&self) -> usize;

    /// Number of waiting requests of a class.
    fn depth(&self, priority: Priority) -> usize;

    /// Number of requests ahead of this request if nothing else arrives
    /// and all requests cost the same; `None` if it does not wait.
    fn position(&self, id: RequestId) -> Option<usize>;

    /// Records [`Service`] that a user received.
    fn charge(&mut self, service: Service) {
        let _ = service;
    }

    /// Changes the options of a fair queue. The default implementation ignores them.
    fn set_fair(&mut self, options: FairOptions) {
        let _ = options;
    }

    /// Whether no request waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most urgent class with a waiting request.
    fn most_urgent(&self) -> Option<Priority> {
        Priority::ALL.into_iter().find(|class| self.depth(*class) > 0)
    }
}

/// Inputs to [`QueueOrder::choose`].
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The current time.
    pub now: Duration,
    /// Number of cached tokens of a request; `None` if nothing is cached.
    pub cached: Option<&'a dyn Fn(&SchedRequest) -> usize>,
    /// Service difference within which two users count as equals, in the unit of [`Service::cost`].
    pub quantum: f64,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("now", &self.now).field("quantum", &self.quantum).finish_non_exhaustive()
    }
}

/// Service that a user received: prompt tokens admitted, without cached tokens, and tokens generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Service {
    /// The class of the request.
    pub priority: Priority,
    /// The user of the request.
    pub user: UserId,
    /// Prompt tokens computed.
    pub input: usize,
    /// Tokens generated.
    pub output: usize,
}

impl Service {
    /// Cost of a prompt token.
    pub const INPUT_COST: f64 = 1.0;
    /// Cost of a generated token, which requires its own pass.
    pub const OUTPUT_COST: f64 = 2.0;

    /// Weighted total of the service.
    pub fn cost(&self) -> f64 {
        self.input as f64 * Self::INPUT_COST + self.output as f64 * Self::OUTPUT_COST
    }
}
