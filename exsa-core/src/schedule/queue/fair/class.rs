//! The queue of one class.

use super::counters::{FlowId, Flows};
use super::slab::{List, SlotId, Slots};
use crate::priority::UserId;
use crate::schedule::queue::View;
use std::time::Duration;

/// Maximum users that are compared as equally served, least served first.
const EQUALS_MAX: usize = 8;
/// Requests considered per user.
const WINDOW: usize = 4;
/// Maximum times that a user's first request is overtaken by later requests of the same user.
const PASSED_MAX: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct ClassQueue {
    flows: Flows,
    /// Preempted requests by arrival; they go before all others.
    returned: List,
    len: usize,
    /// Time since which the class has waited to be served.
    waiting_since: Duration,
}

impl ClassQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Time for which the class has waited without being served.
    pub(super) fn unserved(&self, now: Duration) -> Duration {
        now.saturating_sub(self.waiting_since)
    }

    pub(super) fn counter(&self, user: UserId) -> Option<f64> {
        self.flows.of(user).map(|flow| self.flows.get(flow).counter)
    }

    pub(super) fn charge(&mut self, user: UserId, cost: f64) {
        self.flows.charge(user, cost);
    }

    pub(super) fn link(&mut self, slots: &mut Slots, slot: SlotId, now: Duration) {
        let Some(request) = slots.get(slot) else { return };
        if self.len == 0 {
            self.waiting_since = now;
        }
        self.len += 1;
        if request.history.admitted {
            return slots.link(&mut self.returned, slot);
        }
        let flow = self.flows.enter(request.user, request.weight);
        if self.flows.get(flow).waiting.len == 0 {
            self.flows.arrive(flow);
        }
        slots.link(&mut self.flows.get_mut(flow).waiting, slot);
    }

    pub(super) fn unlink(&mut self, slots: &mut Slots, slot: SlotId) {
        let Some(request) = slots.get(slot) else { return };
        self.len -= 1;
        if request.history.admitted {
            return slots.unlink(&mut self.returned, slot);
        }
        let Some(id) = self.flows.of(request.user) else { return };
        let flow = self.flows.get_mut(id);
        slots.unlink(&mut flow.waiting, slot);
        if flow.waiting.len == 0 {
            self.flows.leave(id);
        }
    }

    /// Records that `slot` is served.
    pub(super) fn served(&mut self, slots: &Slots, slot: SlotId, now: Duration) {
        self.waiting_since = now;
        let Some(request) = slots.get(slot).filter(|request| !request.history.admitted) else { return };
        let Some(flow) = self.flows.of(request.user) else { return };
        let flow = self.flows.get_mut(flow);
        flow.passed = if flow.waiting.first == Some(slot) { 0 } else { flow.passed + 1 };
    }

    /// Selects the next request.
    pub(super) fn choose(&mut self, slots: &Slots, view: &View<'_>) -> Option<SlotId> {
        if self.returned.first.is_some() {
            return self.returned.first;
        }
        let least = self.flows.pop()?;
        let first = self.flows.get(least).waiting.first;
        let Some(cached) = view.cached else {
            self.flows.put_back(least);
            return first;
        };
        let limit = self.flows.get(least).counter + view.quantum;
        let mut equals = [least; EQUALS_MAX];
        let mut n = 1;
        while n < EQUALS_MAX && view.quantum > 0.0 {
            let Some(flow) = self.flows.pop() else { break };
            if self.flows.get(flow).counter > limit {
                self.flows.put_back(flow);
                break;
            }
            equals[n] = flow;
            n += 1;
        }
        let mut best = (0, first);
        for flow in &equals[..n] {
            self.longest(slots, *flow, cached, &mut best);
            self.flows.put_back(*flow);
        }
        best.1
    }

    /// Searches the first requests of a user for a longer cached prefix.
    fn longest(
        &self,
        slots: &Slots,
        flow: FlowId,
        cached: &dyn Fn(&crate::schedule::SchedRequest) -> usize,
        best: &mut (usize, Option<SlotId>),
    ) {
        let flow = self.flows.get(flow);
        let window = if flow.passed < PASSED_MAX { WINDOW } else { 1 };
        let mut next = flow.waiting.first;
        for _ in 0..window {
            let Some(request) = next.and_then(|slot| slots.get(slot)) else { break };
            let len = cached(request);
            if len > best.0 {
                *best = (len, next);
            }
            next = next.and_then(|slot| slots.next(slot));
        }
    }

    /// Number of requests of the class ahead of `slot` if all cost the
    /// same: preempted requests first, then round robin over users.
    pub(super) fn position(&self, slots: &Slots, slot: SlotId) -> usize {
        let place = |list: &List| {
            let mut next = list.first;
            std::iter::from_fn(move || {
                let slot = next?;
                next = slots.next(slot);
                Some(slot)
            })
            .take_while(|other| *other != slot)
            .count()
        };
        let Some(request) = slots.get(slot) else { return 0 };
        if request.history.admitted {
            return place(&self.returned);
        }
        let Some(flow) = self.flows.of(request.user) else { return 0 };
        let own = self.flows.get(flow);
        let turn = place(&own.waiting);
        let others = self.flows.backlogged().filter(|(id, _)| *id != flow);
        let ahead = others.map(|(id, other)| {
            let before = (other.counter, id) < (own.counter, flow);
            other.waiting.len.min(turn + usize::from(before))
        });
        self.returned.len + turn + ahead.sum::<usize>()
    }
}
