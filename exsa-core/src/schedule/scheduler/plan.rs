//! The scheduler's output for one step.

use crate::prompt_cache::EntryId;
use crate::schedule::kv::KvOp;
use crate::speculate::Kind;
use crate::token::RequestId;
use crate::token::SeqId;

/// Kinds of [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// Known tokens without KV: a prompt, or a preempted request to recompute.
    Prefill,
    /// The next token of a stream, and the drafts verified with it.
    Decode,
}

/// One sequence's share of a step: `len` tokens from position `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// The request.
    pub id: RequestId,
    /// Its sequence in the session.
    pub seq: SeqId,
    /// Position of the first token to compute.
    pub start: usize,
    /// Tokens to compute, drafts included, at least 1.
    pub len: usize,
    /// Number of drafts at the end of these tokens.
    pub drafts: usize,
    /// Kind of the drafts; `None` without drafts.
    pub(crate) draft_kind: Option<Kind>,
    /// Rows of logits needed: rows of the prompt, then one row for the last known token and for each draft,
    /// unless known tokens remain for later steps.
    pub rows: usize,
    /// Number of rows, at the beginning of `rows`, for log-probabilities of the prompt.
    pub prompt_rows: usize,
    /// Prefill or decode.
    pub kind: WorkKind,
}

impl Work {
    /// Known tokens up to the end of this work; the first row predicts the token after them.
    pub fn known(&self) -> usize {
        self.start + self.len - self.drafts
    }
}

/// An admitted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The request.
    pub id: RequestId,
    /// Its sequence.
    pub seq: SeqId,
    /// Whether it was admitted before and then preempted.
    pub again: bool,
}

/// Plan of the next step.
#[derive(Debug, Default)]
pub struct Plan {
    /// Operations on the session's sequences before the pass, in this order.
    pub kv: Vec<KvOp>,
    /// The batch: decodes first.
    pub work: Vec<Work>,
    /// Requests that lost their sequence.
    pub preempted: Vec<RequestId>,
    /// Requests that were assigned a sequence.
    pub admitted: Vec<Admitted>,
    /// Requests with cached prompt tokens, and the number of these tokens.
    pub cached: Vec<(RequestId, usize)>,
    /// Requests past their deadline; to be [removed](super::Scheduler::remove) by the caller.
    pub expired: Vec<RequestId>,
    /// Requests past the time limit for their first token; to be removed likewise.
    pub late: Vec<RequestId>,
    /// Requests that need more KV than the cache holds; to be removed likewise.
    pub exhausted: Vec<RequestId>,
    /// Entries of the prompt store to read.
    pub reads: Vec<EntryId>,
    tokens: usize,
    decodes: usize,
    prompt_rows: usize,
}

impl Plan {
    /// Whether the step would do nothing.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
            && self.kv.is_empty()
            && self.preempted.is_empty()
            && self.reads.is_empty()
            && !self.ends_any()
    }

    /// Whether the plan ends requests.
    pub fn ends_any(&self) -> bool {
        !(self.expired.is_empty() && self.late.is_empty() && self.exhausted.is_empty())
    }

    /// Tokens that the step computes.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Decodes among the work.
    pub fn decodes(&self) -> usize {
        self.decodes
    }

    /// Rows for log-probabilities of prompts.
    pub fn prompt_rows(&self) -> usize {
        self.prompt_rows
    }

    pub(super) fn push(&mut self, work: Work) {
        self.prompt_rows += work.prompt_rows;
        self.tokens += work.len;
        self.decodes += usize::from(work.kind == WorkKind::Decode);
        self.work.push(work);
    }

    /// Adds drafts to the work at `index`.
    pub(super) fn add_drafts(&mut self, index: usize, drafts: usize, kind: Kind) {
        let work = &mut self.work[index];
        work.draft_kind = Some(kind);
        work.len += drafts;
        work.drafts += drafts;
        work.rows += drafts;
        self.tokens += drafts;
    }

    /// Removes the work of a request.
    pub(super) fn withdraw(&mut self, id: RequestId) {
        if let Some(at) = self.work.iter().position(|work| work.id == id) {
            let work = self.work.remove(at);
            self.tokens -= work.len;
            self.prompt_rows -= work.prompt_rows;
            self.decodes -= usize::from(work.kind == WorkKind::Decode);
        }
    }

    pub(super) fn clear(&mut self) {
        (self.tokens, self.decodes, self.prompt_rows) = (0, 0, 0);
        self.kv.clear();
        self.work.clear();
        self.preempted.clear();
        self.admitted.clear();
        self.cached.clear();
        self.expired.clear();
        self.late.clear();
        self.exhausted.clear();
        self.reads.clear();
    }
}
