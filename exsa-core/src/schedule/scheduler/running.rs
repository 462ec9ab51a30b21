//! A request that holds a sequence.

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

    pub(super) fn remaining(&self) -> usize {
        self.request.tokens.len() - self.computed
    }

    /// Whether it may be given work.
    pub(super) fn is_active(&self) -> bool {
        self.paused.is_none() && self.follows.is_none()
    }

    /// Whether it has part of a prompt to compute, and may.
    pub(super) fn prefills(&self) -> bool {
        self.is_active() && self.remaining() > 1
    }
}
