//! A request that holds a sequence.

use super::plan::{Work, WorkKind};
use crate::priority::Priority;
use crate::schedule::sched_request::SchedRequest;
use crate::token::RequestId;
use crate::token::SeqId;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) request: SchedRequest,
    pub(super) seq: SeqId,
    /// Tokens with KV in the session.
    pub(super) computed: usize,
    /// Tokens computed as prefill: all tokens known at admission except the last. After them, the sequence
    /// decodes.
    pub(super) prefill_len: usize,
    /// Time since which the sequence has been paused, without work. It keeps its KV until another request
    /// needs the blocks.
    pub(super) paused: Option<Duration>,
    /// The leader whose prefill this sequence waits for.
    pub(super) follows: Option<Follow>,
    /// Time at which it last got work.
    pub(super) worked: Duration,
    /// Prompt positions at which its state is to be saved to the prompt store, last first.
    pub(super) checkpoints: Vec<usize>,
    /// Preempted `preemptions_max` times; only protected sequences can preempt it from now on.
    pub(super) protected: bool,
}

/// A follower's wait for a leader to compute their common prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follow {
    pub(super) leader: RequestId,
    pub(super) leader_seq: SeqId,
    /// Length of the prefix to share.
    pub(super) len: usize,
    /// Whether this is the request's first admission, so that the shared tokens count in its usage.
    pub(super) first: bool,
}

/// Sort key of running sequences: protected first, then by
/// priority, then by arrival. The last is preempted first.
pub(super) type Key = (bool, Priority, u64);

impl Running {
    pub(super) fn key(&self) -> Key {
        (!self.protected, self.request.effective_priority(), self.request.arrival)
    }

    /// Known tokens without KV.
    pub(super) fn remaining(&self) -> usize {
        self.request.tokens().len() - self.computed
    }

    /// The wait of `request` for this sequence to compute the first `len` tokens.
    pub(super) fn leads(&self, request: &SchedRequest, len: usize) -> Follow {
        Follow { leader: self.request.id, leader_seq: self.seq, len, first: !request.history.admitted }
    }

    /// Whether it may be given work.
    pub(super) fn is_active(&self) -> bool {
        self.paused.is_none() && self.follows.is_none()
    }

    /// Whether its next work is prefill.
    pub(super) fn prefills(&self) -> bool {
        self.is_active() && self.computed < self.prefill_len
    }

    /// Whether its next work is a decode.
    pub(super) fn decodes(&self) -> bool {
        self.is_active() && self.computed >= self.prefill_len && self.remaining() > 0
    }

    /// Its work, without drafts, in a step that has `room` tokens and `prompt_rows` rows of prompts left.
    pub(super) fn work(&self, room: usize, prompt_rows: usize) -> Work {
        let start = self.computed;
        let unscored = self.request.unscored().map(|position| position.max(start));
        let rows_max = unscored.map_or(usize::MAX, |position| (position - start).saturating_add(prompt_rows));
        let checkpoint =
            self.checkpoints.last().filter(|at| **at > start).map_or(usize::MAX, |at| at - start);
        let len = self.remaining().min(room).min(rows_max).min(checkpoint);
        let kind = if start < self.prefill_len { WorkKind::Prefill } else { WorkKind::Decode };
        let last = usize::from(len == self.remaining());
        let prompt_rows = unscored.map_or(0, |position| (start + len).saturating_sub(position + last));
        let (id, seq, rows) = (self.request.id, self.seq, prompt_rows + last);
        Work { id, seq, start, len, drafts: 0, draft_kind: None, rows, prompt_rows, kind }
    }
}
