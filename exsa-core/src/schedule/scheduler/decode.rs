//! Plans one decode per running stream.

use super::Scheduler;
use super::running::Running;
use crate::token::SeqId;
use std::time::Duration;

impl Scheduler {
    pub(super) fn plan_decodes(&mut self, now: Duration) {
        let mut i = 0;
        while i < self.order.len() && self.batch_room() > 0 {
            let (seq, room) = (self.order[i], self.batch_room());
            i += 1;
            if !self.get(seq).is_some_and(Running::decodes) || !self.takes_adapters_of(seq) {
                continue;
            }
            let Some(running) = self.running_mut(seq) else { continue };
            running.worked = now;
            let (id, key, work) = (running.request.id, running.key(), running.work(room, 0));
            let preempted = self.plan.preempted.len();
            if self.make_room(seq, work.known(), now) {
                self.plan.push(work);
            } else if self.order.len() == 1 {
                self.plan.exhausted.push(id);
            } else {
                // No paused or later sequence is left to preempt, so this sequence is preempted itself.
                self.preempt(seq, now);
            }
            if self.plan.preempted.len() > preempted {
                // Making room may have preempted sequences on either side.
                i = self.place(key)
                    + usize::from(self.get(seq).is_some_and(|running| running.request.id == id));
            }
        }
    }

    /// Plans the decode of a sequence that joined after the decodes were planned, if no prefill is left.
    pub(super) fn plan_late_decode(&mut self, seq: SeqId) {
        let room = self.batch_room();
        let Some(running) = self.get(seq).filter(|running| room > 0 && running.decodes()) else { return };
        let work = running.work(room, 0);
        if self.takes_adapters_of(seq) {
            self.plan.push(work);
        }
    }

    /// Tokens left in the batch of this plan.
    pub(super) fn batch_room(&self) -> usize {
        self.options.batch_tokens_max - self.plan.tokens()
    }

    /// Grows `seq` to `tokens`: from free blocks, then cached blocks, then by
    /// preemption of paused sequences and of the sequences after it, last first.
    pub(super) fn make_room(&mut self, seq: SeqId, tokens: usize, now: Duration) -> bool {
        loop {
            if self.kv.grow(seq, tokens) {
                return true;
            }
            let victim =
                self.paused_last(Duration::MAX).filter(|v| *v != seq).or_else(|| self.last_after(seq));
            let Some(victim) = victim else { return false };
            self.preempt(victim, now);
        }
    }

    /// The last sequence in order that was paused at `before` or earlier.
    pub(super) fn paused_last(&self, before: Duration) -> Option<SeqId> {
        let paused =
            |seq: &SeqId| self.get(*seq).is_some_and(|r| r.paused.is_some_and(|since| since <= before));
        self.order.iter().rev().copied().find(paused)
    }

    /// The last sequence in the order that comes after `seq` and holds KV.
    fn last_after(&self, seq: SeqId) -> Option<SeqId> {
        let after = self.order.iter().rev().take_while(|other| **other != seq);
        after.copied().find(|other| self.kv.blocks().blocks_held(*other) > 0)
    }
}
