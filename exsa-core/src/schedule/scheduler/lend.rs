//! Sequences lent to passes that the scheduler does not plan: texts to embed.

use super::{PAUSE_GRACE, Scheduler};
use crate::token::SeqId;
use std::time::Duration;

impl Scheduler {
    /// Lends an empty sequence with KV blocks for `tokens` tokens, from free and cached blocks: running
    /// requests keep their blocks. `None` if these do not suffice. The caller must [return](Self::take_back)
    /// the sequence before the next plan, so that the blocks are available to running requests.
    pub fn lend(&mut self, tokens: usize) -> Option<SeqId> {
        if self.kv.blocks().blocks_of(tokens) > self.kv.available() {
            return None;
        }
        let (seq, _) = self.kv.admit(None)?;
        if self.kv.grow(seq, tokens) {
            return Some(seq);
        }
        self.kv.release(seq);
        None
    }

    /// Takes a lent sequence back.
    pub fn take_back(&mut self, seq: SeqId) {
        self.kv.release(seq);
    }

    /// Makes room for a text that could not be lent a sequence since `since`. Requests paused for
    /// [`PAUSE_GRACE`] are preempted, one per call. After `hold_after`, no request is admitted until
    /// [`lending_done`](Self::lending_done), so that requests that end free enough blocks.
    pub fn want_to_lend(&mut self, since: Duration, hold_after: Duration, now: Duration) {
        self.admission_held = now.saturating_sub(since) >= hold_after;
        if let Some(seq) = now.checked_sub(PAUSE_GRACE).and_then(|before| self.paused_last(before)) {
            self.preempt(seq, now);
        }
    }

    /// Resumes admission: no text waits for a sequence.
    pub fn lending_done(&mut self) {
        self.admission_held = false;
    }
}
