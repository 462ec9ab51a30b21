//! Tokens of running requests that are taken back, or dropped to make room in the context.

use super::{Running, Scheduler};
use crate::schedule::queue::Service;
use crate::token::SeqId;
use std::time::Duration;

impl Scheduler {
    /// Takes back the last `tokens` tokens of the answer that holds `seq`, after a [commit](Self::commit).
    /// Its next work computes the logits of the last token that is left. Sessions that cannot truncate
    /// compute all again.
    ///
    /// The user stays charged for these tokens, which took their passes.
    pub fn rewind(&mut self, seq: SeqId, tokens: usize) {
        let Some(running) = self.running.get_mut(seq.index()).and_then(Option::as_mut) else { return };
        let len = running.request.take_back(tokens);
        running.computed = self.kv.rewind(seq, running.computed.min(len - 1));
        // The rest is computed as a decode, for which the plan makes room.
        running.prefill_len = running.prefill_len.min(running.computed);
        self.counters.rewound_tokens += tokens as u64;
    }

    /// Whether the request that holds `seq` has filled its context and asks to go on.
    pub fn is_context_full(&self, seq: SeqId) -> bool {
        self.get(seq).is_some_and(|Running { request, .. }| {
            request.keep.is_some() && request.tokens().len() >= self.context_window
        })
    }

    /// Shifts the context of the request that holds `seq`, after a [commit](Self::commit): keeps its first
    /// tokens, drops half of the rest and has what remains behind the gap computed again, in chunks like a
    /// prompt. Returns the number of tokens before the gap.
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
            // Blocks that others share did not become free.
            self.requeue(id, now);
        }
        kept
    }
}
