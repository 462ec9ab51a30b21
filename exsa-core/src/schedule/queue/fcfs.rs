//! First come, first served, without classes or users.

use super::{QueueOrder, View};
use crate::priority::Priority;
use crate::schedule::sched_request::SchedRequest;
use crate::token::RequestId;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::time::Duration;

/// First come, first served. Ignores classes and users.
#[derive(Debug, Default)]
pub struct Fcfs {
    by_rank: BTreeMap<u64, SchedRequest>,
    ranks: HashMap<RequestId, u64>,
    depths: [usize; Priority::COUNT],
}

impl Fcfs {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    fn take(&mut self, arrival: u64) -> Option<SchedRequest> {
        let request = self.by_rank.remove(&arrival)?;
        self.ranks.remove(&request.id);
        self.depths[request.priority.index()] -= 1;
        Some(request)
    }
}

impl QueueOrder for Fcfs {
    fn push(&mut self, request: SchedRequest, _now: Duration) {
        self.ranks.insert(request.id, request.arrival);
        self.depths[request.priority.index()] += 1;
        self.by_rank.insert(request.arrival, request);
    }

    fn choose(&mut self, _view: &View<'_>) -> Option<RequestId> {
        self.chosen().map(|request| request.id)
    }

    fn chosen(&self) -> Option<&SchedRequest> {
        self.by_rank.first_key_value().map(|(_, request)| request)
    }

    fn pop(&mut self, _now: Duration) -> Option<SchedRequest> {
        let arrival = *self.by_rank.first_key_value()?.0;
        self.take(arrival)
    }

    fn remove(&mut self, id: RequestId) -> Option<SchedRequest> {
        let arrival = *self.ranks.get(&id)?;
        self.take(arrival)
    }

    fn len(&self) -> usize {
        self.by_rank.len()
    }

    fn depth(&self, priority: Priority) -> usize {
        self.depths[priority.index()]
    }

    fn position(&self, id: RequestId) -> Option<usize> {
        let arrival = *self.ranks.get(&id)?;
        Some(self.by_rank.range(..arrival).count())
    }

    fn most_urgent(&self) -> Option<Priority> {
        // Classes are ignored, so no request is preempted for another.
        None
    }
}
