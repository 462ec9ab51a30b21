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
    /// Tokens computed as prefill: all known at admission but the last. Decoding follows.
    pub(super) prefill_len: usize,
    /// Time since which the sequence gets no work. It keeps its KV until another request needs the room.
    pub(super) paused: Option<Duration>,
    /// The leader whose prefill this sequence waits for.
    pub(super) follows: Option<Follow>,
    /// Time at which it last got work.
    pub(super) worked: Duration,
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

    /// Its work, without drafts, in a step with `room` tokens left.
    pub(super) fn work(&self, room: usize) -> Work {
        let len = self.remaining().min(room);
        let kind = if self.computed < self.prefill_len { WorkKind::Prefill } else { WorkKind::Decode };
        let rows = usize::from(len == self.remaining());
        Work { id: self.request.id, seq: self.seq, start: self.computed, len, drafts: 0, rows, kind }
    }
}
