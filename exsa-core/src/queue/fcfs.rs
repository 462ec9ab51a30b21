//! First come, first served, whoever it is.

use super::{QueueOrder, View};
use crate::priority::Priority;
use crate::scheduler::{RequestId, Ticket};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::time::Duration;

/// First come, first served. Knows neither classes nor users.
#[derive(Debug, Default)]
pub struct Fcfs {
    by_rank: BTreeMap<u64, Ticket>,
    ranks: HashMap<RequestId, u64>,
    depths: [usize; Priority::COUNT],
}

impl Fcfs {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    fn take(&mut self, rank: u64) -> Option<Ticket> {
        let ticket = self.by_rank.remove(&rank)?;
        self.ranks.remove(&ticket.id);
        self.depths[ticket.priority.index()] -= 1;
        Some(ticket)
    }
}

impl QueueOrder for Fcfs {
    fn push(&mut self, ticket: Ticket, _now: Duration) {
        self.ranks.insert(ticket.id, ticket.rank);
        self.depths[ticket.priority.index()] += 1;
        self.by_rank.insert(ticket.rank, ticket);
    }

    fn choose(&mut self, _view: &View<'_>) -> Option<RequestId> {
        self.chosen().map(|ticket| ticket.id)
    }

    fn chosen(&self) -> Option<&Ticket> {
        self.by_rank.first_key_value().map(|(_, ticket)| ticket)
    }

    fn pop(&mut self, _now: Duration) -> Option<Ticket> {
        let rank = *self.by_rank.first_key_value()?.0;
        self.take(rank)
    }

    fn remove(&mut self, id: RequestId) -> Option<Ticket> {
        let rank = *self.ranks.get(&id)?;
        self.take(rank)
    }

    fn len(&self) -> usize {
        self.by_rank.len()
    }

    fn depth(&self, priority: Priority) -> usize {
        self.depths[priority.index()]
    }

    fn position(&self, id: RequestId) -> Option<usize> {
        let rank = *self.ranks.get(&id)?;
        Some(self.by_rank.range(..rank).count())
    }

    fn most_urgent(&self) -> Option<Priority> {
        // Classes do not count here, so nobody has to give way to another.
        None
    }
}
