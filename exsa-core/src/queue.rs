//! The order in which waiting requests are admitted.

use crate::scheduler::{RequestId, Ticket};
use std::collections::{BTreeMap, HashMap};

/// Decides which waiting request is admitted next.
///
/// # Contract
///
/// - `peek` and `next` agree, and neither makes a request wait forever while others pass it.
/// - A request that was preempted comes back by `push` with the rank it had; it goes ahead of everything that
///   arrived after it.
pub trait QueueOrder: Send {
    /// Adds a request.
    fn push(&mut self, ticket: Ticket);

    /// The request that goes next.
    fn peek(&self) -> Option<&Ticket>;

    /// Takes the request that goes next.
    fn pop(&mut self) -> Option<Ticket>;

    /// Takes a request out of its place; `None` if it does not wait.
    fn remove(&mut self, id: RequestId) -> Option<Ticket>;

    /// Requests waiting.
    fn len(&self) -> usize;

    /// Whether nothing waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// First come, first served.
#[derive(Debug, Default)]
pub struct Fcfs {
    by_rank: BTreeMap<u64, Ticket>,
    ranks: HashMap<RequestId, u64>,
}

impl Fcfs {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }
}

impl QueueOrder for Fcfs {
    fn push(&mut self, ticket: Ticket) {
        self.ranks.insert(ticket.id, ticket.rank);
        self.by_rank.insert(ticket.rank, ticket);
    }

    fn peek(&self) -> Option<&Ticket> {
        self.by_rank.first_key_value().map(|(_, ticket)| ticket)
    }

    fn pop(&mut self) -> Option<Ticket> {
        let (_, ticket) = self.by_rank.pop_first()?;
        self.ranks.remove(&ticket.id);
        Some(ticket)
    }

    fn remove(&mut self, id: RequestId) -> Option<Ticket> {
        let rank = self.ranks.remove(&id)?;
        self.by_rank.remove(&rank)
    }

    fn len(&self) -> usize {
        self.by_rank.len()
    }
}
