//! Queue of waiting parts: core's fair queue with the parts' data.

use crate::job::Part;
use exsa_core::queue::{FairOptions, FairQueue, QueueOrder, Service, View};
use exsa_core::schedule::SchedRequest;
use exsa_core::{Priority, RequestId};
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Difference in service, in prompt tokens, up to which users count as equal.
const QUANTUM: f64 = 512.0;

pub(crate) struct Queue {
    order: FairQueue,
    parts: HashMap<u64, Part>,
    users: HashMap<Arc<str>, usize>,
}

impl Queue {
    pub(crate) fn new(options: FairOptions) -> Self {
        Self { order: FairQueue::new(options), parts: HashMap::new(), users: HashMap::new() }
    }

    pub(crate) fn set_fair(&mut self, options: FairOptions) {
        self.order.set_fair(options);
    }

    pub(crate) fn push(&mut self, part: Part, now: Duration) {
        let job = &part.job;
        let mut request = SchedRequest::new(part.id, Vec::new(), usize::MAX);
        request.arrival = job.number;
        (request.priority, request.weight, request.user) =
            (job.request.priority, job.request.weight, job.user);
        request.history.admitted = part.placed;
        self.order.push(request, now);
        *self.users.entry_ref(&job.user_name).or_insert(0) += 1;
        self.parts.insert(part.id, part);
    }

    /// Returns the next part in order, without removing it.
    pub(crate) fn choose(&mut self, now: Duration) -> Option<Part> {
        let id = self.order.choose(&View { now, cached: None, quantum: QUANTUM })?;
        self.parts.get(&id.0).cloned()
    }

    /// Removes the chosen part and counts it as served.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Part> {
        let request = self.order.pop(now)?;
        self.forget(request.id.0)
    }

    /// Removes a part.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Part> {
        self.order.remove(RequestId(id));
        self.forget(id)
    }

    fn forget(&mut self, id: u64) -> Option<Part> {
        let part = self.parts.remove(&id)?;
        if let Some(waiting) = self.users.get_mut(&part.job.user_name) {
            *waiting -= 1;
            if *waiting == 0 {
                self.users.remove(&part.job.user_name);
            }
        }
        Some(part)
    }

    /// Removes all parts that satisfy `condition`.
    pub(crate) fn take(&mut self, condition: impl Fn(&Part) -> bool) -> Vec<Part> {
        let ids: Vec<_> = self.parts.values().filter(|part| condition(part)).map(|part| part.id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Part> {
        self.parts.values()
    }

    pub(crate) fn charge(&mut self, part: &Part, input: usize, output: usize) {
        let (priority, user) = (part.job.request.priority, part.job.user);
        self.order.charge(Service { priority, user, input, output });
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(crate) fn depth(&self, priority: Priority) -> usize {
        self.order.depth(priority)
    }

    pub(crate) fn of_user(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    pub(crate) fn by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.users.iter().map(|(user, waiting)| (user.clone(), *waiting)).collect()
    }

    /// Returns the number of parts ahead of the job's first.
    pub(crate) fn position(&self, job: u64) -> Option<usize> {
        let parts = self.parts.values().filter(|part| part.job.number == job);
        parts.filter_map(|part| self.order.position(RequestId(part.id))).min()
    }
}
