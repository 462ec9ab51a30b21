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
/// - `chosen` shows and `pop` takes what the last `choose` decided, until something is pushed or removed; no request waits
///   forever while others pass it.
/// - A request that was preempted comes back by `push` with the arrival it had; it goes ahead of everything of its class that
///   arrived after it.
pub trait QueueOrder: Send {
    /// Adds a request at the time `now`.
    fn push(&mut self, request: SchedRequest, now: Duration);

    /// Decides which request goes next.
    fn choose(&mut self, view: &View<'_>) -> Option<RequestId>;

    /// The request that goes next.
    fn chosen(&self) -> Option<&SchedRequest>;

    /// Takes the request that goes next.
    fn pop(&mut self, now: Duration) -> Option<SchedRequest>;

    /// Takes a request out of its place; `None` if it does not wait.
    fn remove(&mut self, id: RequestId) -> Option<SchedRequest>;

    /// Requests waiting.
    fn len(&self) -> usize;

    /// Requests of a class waiting.
    fn depth(&self, priority: Priority) -> usize;

    /// How many requests go before this one, if nothing else arrives and all are alike; `None` if it does not wait.
    fn position(&self, id: RequestId) -> Option<usize>;

    /// Hears what service a user got: see [`Service`].
    fn charge(&mut self, service: Service) {
        let _ = service;
    }

    /// Whether nothing waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most urgent class of which a request waits.
    fn most_urgent(&self) -> Option<Priority> {
        Priority::ALL.into_iter().find(|class| self.depth(*class) > 0)
    }
}

/// What a queue may look at when it chooses.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The time.
    pub now: Duration,
    /// How many tokens of a request's prompt are cached; `None` where nothing is.
    pub cached: Option<&'a dyn Fn(&SchedRequest) -> usize>,
    /// How far the service of two users may be apart for them to count as equals, in the units of [`Service`].
    pub quantum: f64,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("now", &self.now).field("quantum", &self.quantum).finish_non_exhaustive()
    }
}

/// Service that a user got: tokens of prompts that were admitted, net of cached ones, and tokens generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Service {
    /// The class of the request.
    pub priority: Priority,
    /// Whose request it was.
    pub user: UserId,
    /// Tokens of prompt computed for it.
    pub input: usize,
    /// Tokens generated.
    pub output: usize,
}

impl Service {
    /// What a token of a prompt costs.
    pub const INPUT_COST: f64 = 1.0;
    /// What a generated token costs: it takes a pass of its own.
    pub const OUTPUT_COST: f64 = 2.0;

    /// The service as one number.
    pub fn cost(&self) -> f64 {
        self.input as f64 * Self::INPUT_COST + self.output as f64 * Self::OUTPUT_COST
    }
}
