//! Preemption: selection of the victim, and handling of its KV.

use super::Scheduler;
use crate::priority::Priority;
use crate::schedule::kv::KvOp;
use crate::token::RequestId;
use crate::token::SeqId;
use std::time::Duration;

impl Scheduler {
    /// Returns a running request to the queue; it keeps its arrival. Its KV stays cached until its blocks are
    /// needed, and is also saved to host memory if that costs less than recomputation.
    pub(super) fn preempt(&mut self, seq: SeqId, now: Duration) {
        let Some(running) = self.stop(seq) else { return };
        let (mut request, computed) = (running.request, running.computed);
        let bytes = self.bytes_of(computed);
        self.saved_bytes -= self.bytes_of(std::mem::take(&mut request.history.saved));
        let room = self.options.saved_bytes_max.saturating_sub(self.saved_bytes);
        if self.can_save
            && computed > 0
            && (1..=room).contains(&bytes)
            && self.costs.saving_pays(bytes, computed)
        {
            self.kv.push_op(KvOp::Save { id: request.id, seq, len: computed });
            request.history.saved = computed;
            self.saved_bytes += bytes;
            self.counters.preemptions_saved += 1;
        }
        self.kv.cache(seq, &request.namespace, &request.tokens()[..computed]);
        let id = request.id;
        self.plan.withdraw(id);
        self.plan.preempted.push(id);
        self.counters.preemptions += 1;
        if running.paused.is_some() {
            self.suspended.insert(id, request);
        } else {
            request.history.preemptions += 1;
            self.queue.push(request, now);
        }
    }

    /// Returns a running request to the queue, because the session lost its KV in a failed pass.
    pub fn requeue(&mut self, id: RequestId, now: Duration) {
        let Some(running) = self.seqs.get(&id).copied().and_then(|seq| self.stop(seq)) else { return };
        self.kv.release(running.seq);
        self.plan.withdraw(id);
        self.counters.preemptions += 1;
        if running.paused.is_some() {
            self.suspended.insert(id, running.request);
        } else {
            self.queue.push(running.request, now);
        }
    }

    /// Handles a failed operation on `seq`, whose contents are now invalid. Its request is requeued, and no
    /// longer shares KV.
    pub fn kv_op_failed(&mut self, seq: SeqId, now: Duration) {
        match self.running_mut(seq) {
            Some(running) => {
                running.request.history.no_sharing = true;
                let id = running.request.id;
                self.requeue(id, now);
            }
            None => self.kv.forget_idle(seq),
        }
    }

    /// Forgets the saved KV of a request: saving failed, or the saved bytes are gone.
    pub fn forget_saved(&mut self, id: RequestId, now: Duration) {
        let request = match self.seqs.get(&id).copied() {
            Some(seq) => self.running[seq.index()].as_mut().map(|running| &mut running.request),
            None => self.suspended.get_mut(&id),
        };
        if let Some(request) = request {
            let saved = std::mem::take(&mut request.history.saved);
            self.saved_bytes -= self.bytes_of(saved);
        } else if let Some(mut request) = self.queue.remove(id) {
            self.saved_bytes -= self.bytes_of(std::mem::take(&mut request.history.saved));
            self.queue.push(request, now);
        }
    }

    /// The sequence that a waiting request of this priority may preempt: the newest of the least urgent
    /// class, if that class is less urgent and the sequence is not protected.
    pub(super) fn victim_for(&self, level: Priority) -> Option<SeqId> {
        let last = *self.order.last()?;
        self.get(last)
            .filter(|running| !running.protected && running.request.effective_priority() > level)
            .map(|_| last)
    }

    /// Blocks that would be available if every unprotected sequence less urgent than `level` were preempted.
    pub(super) fn available_to(&self, level: Priority) -> usize {
        let lower = self.order.iter().rev().take_while(|seq| {
            self.get(**seq)
                .is_some_and(|running| !running.protected && running.request.effective_priority() > level)
        });
        self.kv.available() + lower.map(|seq| self.kv.blocks().blocks_held(*seq)).sum::<usize>()
    }
}
