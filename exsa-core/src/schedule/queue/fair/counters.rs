//! Users of one class, ordered by received service.

use super::slab::List;
use crate::priority::UserId;
use hashbrown::HashMap;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Index of a [`Flow`].
pub(super) type FlowId = u32;

/// Maximum users without a waiting request whose counters are kept.
const ABSENT_MAX: usize = 8192;

/// One user's waiting requests and virtual token counter: service per weight.
#[derive(Debug, Default)]
pub(super) struct Flow {
    user: UserId,
    pub(super) counter: f64,
    pub(super) weight: f64,
    pub(super) waiting: List,
    /// Times that the first request was overtaken by a later request of the same user.
    pub(super) passed: u32,
    queued: bool,
}

/// A heap entry with the flow's counter at insertion. Counters only grow,
/// so refreshing the top until it is up to date finds the true minimum.
#[derive(Debug)]
struct Entry {
    counter: f64,
    flow: FlowId,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.counter.total_cmp(&self.counter).then(other.flow.cmp(&self.flow))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: Vec<Flow>,
    by_user: HashMap<UserId, FlowId>,
    heap: BinaryHeap<Entry>,
    /// Number of users with waiting requests.
    backlogged: usize,
    /// Counter of the user that left the queue last.
    left: f64,
}

impl Flows {
    pub(super) fn get(&self, flow: FlowId) -> &Flow {
        &self.flows[flow as usize]
    }

    pub(super) fn get_mut(&mut self, flow: FlowId) -> &mut Flow {
        &mut self.flows[flow as usize]
    }

    pub(super) fn of(&self, user: UserId) -> Option<FlowId> {
        self.by_user.get(&user).copied()
    }

    pub(super) fn backlogged(&self) -> impl Iterator<Item = (FlowId, &Flow)> {
        (0..).zip(&self.flows).filter(|(_, flow)| flow.waiting.len > 0)
    }

    /// Returns the user's flow, created if needed, and sets its weight.
    pub(super) fn enter(&mut self, user: UserId, weight: f32) -> FlowId {
        let flow = match self.of(user) {
            Some(flow) => flow,
            None => {
                self.forget_absent();
                self.flows.push(Flow { user, ..Flow::default() });
                let flow = (self.flows.len() - 1) as FlowId;
                self.by_user.insert(user, flow);
                flow
            }
        };
        self.flows[flow as usize].weight = f64::from(weight);
        flow
    }

    /// Lifts the counter of a returning user to the others' level: idle time earns no credit.
    pub(super) fn arrive(&mut self, flow: FlowId) {
        let level = self.least().map_or(self.left, |least| self.get(least).counter);
        let returning = self.get_mut(flow);
        returning.counter = returning.counter.max(level);
        let entry = Entry { counter: returning.counter, flow };
        if !std::mem::replace(&mut returning.queued, true) {
            self.heap.push(entry);
        }
        self.backlogged += 1;
    }

    /// Records that a user has no waiting request any more.
    pub(super) fn leave(&mut self, flow: FlowId) {
        self.left = self.get(flow).counter;
        self.backlogged -= 1;
    }

    pub(super) fn charge(&mut self, user: UserId, cost: f64) {
        if let Some(flow) = self.of(user) {
            let flow = &mut self.flows[flow as usize];
            flow.counter += cost / flow.weight;
        }
    }

    /// The least served backlogged user.
    fn least(&mut self) -> Option<FlowId> {
        let flow = self.pop()?;
        self.put_back(flow);
        Some(flow)
    }

    /// Removes the least served backlogged user from the order, until the user is put back.
    pub(super) fn pop(&mut self) -> Option<FlowId> {
        loop {
            let Entry { counter, flow } = self.heap.pop()?;
            let now = &mut self.flows[flow as usize];
            if now.waiting.len == 0 {
                now.queued = false;
            } else if now.counter > counter {
                self.heap.push(Entry { counter: now.counter, flow });
            } else {
                return Some(flow);
            }
        }
    }

    pub(super) fn put_back(&mut self, flow: FlowId) {
        self.heap.push(Entry { counter: self.get(flow).counter, flow });
    }

    /// Drops absent users that the lift would put at the
    /// same level anyway, then the least served of the rest.
    fn forget_absent(&mut self) {
        if self.flows.len() < 2 * self.backlogged + ABSENT_MAX {
            return;
        }
        let level = self.least().map_or(self.left, |least| self.get(least).counter);
        let mut absent: Vec<f64> =
            self.flows.iter().filter(|f| f.waiting.len == 0).map(|f| f.counter).collect();
        absent.sort_unstable_by(f64::total_cmp);
        let level = absent.get(absent.len() / 2).map_or(level, |median| level.max(*median));
        self.flows.retain(|flow| flow.waiting.len > 0 || flow.counter > level);
        self.by_user.clear();
        self.heap.clear();
        for (i, flow) in self.flows.iter_mut().enumerate() {
            self.by_user.insert(flow.user, i as FlowId);
            flow.queued = flow.waiting.len > 0;
            if flow.queued {
                self.heap.push(Entry { counter: flow.counter, flow: i as FlowId });
            }
        }
    }
}
