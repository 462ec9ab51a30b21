//! What the scheduler decided.

use crate::schedule::kv::KvOp;
use crate::token::RequestId;
use crate::token::SeqId;

/// One sequence's share of a step: `len` tokens from position `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The request.
    pub id: RequestId,
    /// Its sequence in the session.
    pub seq: SeqId,
    /// Position of the first token to compute.
    pub start: usize,
    /// Tokens to compute, at least 1.
    pub len: usize,
    /// Whether the last of them is the last token known, so that a new one is sampled from its logits.
    pub sample: bool,
}

/// A request that was given a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The request.
    pub id: RequestId,
    /// Its sequence.
    pub seq: SeqId,
    /// Whether it held one before, and was preempted.
    pub again: bool,
}

/// What happens in the next step.
#[derive(Debug, Default)]
pub struct Plan {
    /// What the session does with its sequences before the pass, in this order.
    pub kv: Vec<KvOp>,
    /// The batch: decodes first.
    pub work: Vec<Work>,
    /// Requests that lost their sequence and wait again.
    pub preempted: Vec<RequestId>,
    /// Requests that were given a sequence.
    pub admitted: Vec<Admitted>,
    /// Tokens that a request need not compute, because their KV was here.
    pub cached: Vec<(RequestId, usize)>,
    /// Requests past their deadline; to be [removed](super::Scheduler::remove) by the caller.
    pub expired: Vec<RequestId>,
    /// Requests past the time limit for their first token; likewise.
    pub late: Vec<RequestId>,
    /// Requests that need more KV than there is; likewise.
    pub exhausted: Vec<RequestId>,
}

impl Plan {
    /// Whether the step would do nothing at all.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty() && self.kv.is_empty() && self.preempted.is_empty() && !self.ends_any()
    }

    /// Whether the plan ends requests.
    pub fn ends_any(&self) -> bool {
        !(self.expired.is_empty() && self.late.is_empty() && self.exhausted.is_empty())
    }

    pub(super) fn clear(&mut self) {
        self.kv.clear();
        self.work.clear();
        self.preempted.clear();
        self.admitted.clear();
        self.cached.clear();
        self.expired.clear();
        self.late.clear();
        self.exhausted.clear();
    }
}
