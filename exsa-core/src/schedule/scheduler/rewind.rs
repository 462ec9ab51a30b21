//! Rewinding tokens of running requests, and shifting a full context.

use super::{Running, Scheduler};
use crate::schedule::queue::Service;
use crate::token::SeqId;
use std::time::Duration;

impl Scheduler {
    /// Rewinds the last `tokens` tokens of the answer that holds `seq`, after a [commit](Self::commit). Its
    /// next work computes the logits of the last remaining token. In a session that cannot truncate, the
    /// whole sequence is recomputed.
    ///
    /// The user is still charged for these tokens, since passes were spent on them.
    pub fn rewind(&mut self, seq: SeqId, tokens: usize) {
        let Some(running) = self.running.get_mut(seq.index()).and_then(Option::as_mut) else { return };
        let len = running.request.take_back(tokens);
        running.computed = self.kv.rewind(seq, running.computed.min(len - 1));
        // The remaining token is computed as a decode, for which the plan makes room.
        running.prefill_len = running.prefill_len.min(running.computed);
        self.counters.rewound_tokens += tokens as u64;
    }

    /// Whether the request that holds `seq` has filled its context and requests a context shift.
    pub fn is_context_full(&self, seq: SeqId) -> bool {
        self.get(seq).is_some_and(|Running { request, .. }| {
            request.keep.is_some() && request.tokens().len() >= self.context_window
        })
    }

    /// Shifts the context of the request that holds `seq`, after a [commit](Self::commit): keeps its first
    /// tokens, drops half of the rest, and schedules the tokens after the gap for recomputation, in chunks
    /// like a prompt. Returns the number of tokens before the gap.
    pub fn shift_context(&mut self, seq: SeqId, now: Duration) -> usize {
        let Some(running) = self.running.get_mut(seq.index()).and_then(Option::as_mut) else { return 0 };
        let request = &mut running.request;
        let kept = request.shift();
        let (id, len, priority, user) = (request.id, request.tokens().len(), request.priority, request.user);
        running.computed = self.kv.rewind(seq, running.computed.min(kept).min(len - 1));
        running.prefill_len = len - 1;
        let input = running.prefill_len.saturating_sub(running.computed);
        self.queue.charge(Service { priority, user, input, output: 0 });
        self.counters.context_shifts += 1;
        if !self.kv.grow(seq, len) {
            // Blocks that are shared with other sequences were not freed.
            self.requeue(id, now);
        }
        kept
    }
}
