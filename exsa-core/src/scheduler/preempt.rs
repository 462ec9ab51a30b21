//! Who gives way, and what becomes of its KV.

use super::{RequestId, Scheduler};
use crate::kv::KvOp;
use crate::priority::Priority;
use crate::token::SeqId;
use std::time::Duration;

impl Scheduler {
    /// Sends a running request back to the queue with its rank. Its KV stays as long as nobody needs the room; where saving
    /// it in host memory costs less than computing it again, it is saved as well.
    pub(super) fn preempt(&mut self, seq: SeqId, now: Duration) {
        let Some(running) = self.stop(seq) else { return };
        let (mut ticket, computed) = (running.ticket, running.computed);
        let bytes = self.bytes_of(computed);
        self.saved_bytes -= self.bytes_of(std::mem::take(&mut ticket.history.saved));
        let room = self.options.saved_bytes_max.saturating_sub(self.saved_bytes);
        if self.can_save
            && computed > 0
            && (1..=room).contains(&bytes)
            && self.costs.saving_pays(bytes, computed)
        {
            self.kv.push_op(KvOp::Save { id: ticket.id, seq, len: computed });
            ticket.history.saved = computed;
            self.saved_bytes += bytes;
            self.counters.preemptions_saved += 1;
        }
        self.kv.retire(seq, &ticket.namespace, &ticket.tokens[..computed]);
        let id = ticket.id;
        self.plan.work.retain(|work| work.id != id);
        self.plan.preempted.push(id);
        self.counters.preemptions += 1;
        if running.paused.is_some() {
            self.parked.insert(id, ticket);
        } else {
            ticket.history.preemptions += 1;
            self.queue.push(ticket, now);
        }
    }

    /// Sends a running request back to the queue, because the session lost its KV in a pass that failed.
    pub fn start_anew(&mut self, id: RequestId, now: Duration) {
        let Some(running) = self.seqs.get(&id).copied().and_then(|seq| self.stop(seq)) else { return };
        self.kv.release(running.seq);
        self.plan.work.retain(|work| work.id != id);
        self.counters.preemptions += 1;
        if running.paused.is_some() {
            self.parked.insert(id, running.ticket);
        } else {
            self.queue.push(running.ticket, now);
        }
    }

    /// The session could not do an operation on `seq`, which now holds nothing of use. Its request starts anew, and
    /// shares no KV from here on.
    pub fn lost(&mut self, seq: SeqId, now: Duration) {
        match self.running_mut(seq) {
            Some(running) => {
                running.ticket.history.alone = true;
                let id = running.ticket.id;
                self.start_anew(id, now);
            }
            None => self.kv.forget_idle(seq),
        }
    }

    /// The KV of this request could not be saved, or what was saved is gone.
    pub fn forget_saved(&mut self, id: RequestId, now: Duration) {
        let ticket = match self.seqs.get(&id).copied() {
            Some(seq) => self.running[seq.index()].as_mut().map(|running| &mut running.ticket),
            None => self.parked.get_mut(&id),
        };
        if let Some(ticket) = ticket {
            let saved = std::mem::take(&mut ticket.history.saved);
            self.saved_bytes -= self.bytes_of(saved);
        } else if let Some(mut ticket) = self.queue.remove(id) {
            self.saved_bytes -= self.bytes_of(std::mem::take(&mut ticket.history.saved));
            self.queue.push(ticket, now);
        }
    }

    /// The sequence that gives way to a waiting request of this level: the newest of the least urgent class, if that is
    /// less urgent and has not given way too often.
    pub(super) fn victim_for(&self, level: Priority) -> Option<SeqId> {
        let last = *self.order.last()?;
        self.get(last).filter(|running| !running.pinned && running.ticket.level() > level).map(|_| last)
    }

    /// Blocks that would be available if everything less urgent than `level` gave way.
    pub(super) fn available_to(&self, level: Priority) -> usize {
        let lower = self.order.iter().rev().take_while(|seq| {
            self.get(**seq).is_some_and(|running| !running.pinned && running.ticket.level() > level)
        });
        self.kv.available() + lower.map(|seq| self.kv.account().blocks_held(*seq)).sum::<usize>()
    }
}
