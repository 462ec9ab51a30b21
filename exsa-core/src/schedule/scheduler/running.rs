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
    /// Tokens whose KV the session holds.
    pub(super) computed: usize,
    /// Tokens that are computed as prefill: those known at admission, less the last. After them it decodes.
    pub(super) prefill_len: usize,
    /// Since when the sequence is given no work. It keeps its KV while nobody else needs it.
    pub(super) paused: Option<Duration>,
    /// Whose computation it waits for.
    pub(super) follows: Option<Follow>,
    /// When it was last given work.
    pub(super) worked: Duration,
    /// It gave way as often as it has to, and no longer does.
    pub(super) protected: bool,
}

/// A sequence waits until another one has computed what both begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follow {
    pub(super) leader: RequestId,
    pub(super) leader_seq: SeqId,
    /// Tokens that will be shared.
    pub(super) len: usize,
    /// Whether the request is admitted for the first time, so that it matters for its usage.
    pub(super) first: bool,
}

/// Place among those that run: who is protected, more urgent, or older comes before, and the last gives way first.
pub(super) type Key = (bool, Priority, u64);

impl Running {
    pub(super) fn key(&self) -> Key {
        (!self.protected, self.request.effective_priority(), self.request.arrival)
    }

    /// Known tokens whose KV is missing.
    pub(super) fn remaining(&self) -> usize {
        self.request.tokens().len() - self.computed
    }

    /// Whether it may be given work.
    pub(super) fn is_active(&self) -> bool {
        self.paused.is_none() && self.follows.is_none()
    }

    /// Whether it may be given work, and that is prefill.
    pub(super) fn prefills(&self) -> bool {
        self.is_active() && self.computed < self.prefill_len
    }

    /// Whether it may be given work, and that is its next token.
    pub(super) fn decodes(&self) -> bool {
        self.is_active() && self.computed >= self.prefill_len && self.remaining() > 0
    }

    /// Its work for a step that has room for `room` tokens, without drafts.
    pub(super) fn work(&self, room: usize) -> Work {
        let len = self.remaining().min(room);
        let kind = if self.computed < self.prefill_len { WorkKind::Prefill } else { WorkKind::Decode };
        let rows = usize::from(len == self.remaining());
        Work { id: self.request.id, seq: self.seq, start: self.computed, len, drafts: 0, rows, kind }
    }
}
