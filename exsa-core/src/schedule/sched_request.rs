//! The scheduler's view of a request; owns its tokens.

use crate::batch::SpanAdapter;
use crate::priority::{Priority, UserId};
use crate::schedule::prefix::Namespace;
use crate::token::{RequestId, TokenId};
use std::sync::Arc;
use std::time::Duration;

/// A request in the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedRequest {
    /// The request's id.
    pub id: RequestId,
    /// Arrival number; kept across preemption.
    pub arrival: u64,
    /// Prompt, answer so far, and drafts of the current step.
    tokens: Vec<TokenId>,
    /// Drafts at the end of `tokens`.
    drafts: usize,
    /// Length of the prompt; the answer follows it.
    pub prompt_len: usize,
    /// Maximum length, prompt included; `usize::MAX` without
    /// a limit. The context may end the request earlier.
    pub len_max: usize,
    /// Adapters of its spans; `None` for the model alone. They are part of the namespace.
    pub adapters: Option<Arc<[SpanAdapter]>>,
    /// Namespace for KV sharing.
    pub namespace: Namespace,
    /// Priority class.
    pub priority: Priority,
    /// User that the request is accounted to.
    pub user: UserId,
    /// The user's relative share.
    pub weight: f32,
    /// Deadline for the whole answer, in engine time.
    pub deadline: Option<Duration>,
    /// Deadline for the first token.
    pub first_token_by: Option<Duration>,
    /// Scheduling history.
    pub history: History,
    /// Id that requests for several answers to one prompt share; the request's own id if there is one answer.
    pub group: RequestId,
    /// Prompt tokens whose log-probabilities are known. The first token has none, so this is at least 1;
    /// `None` if no log-probability of the prompt is needed.
    pub scored: Option<usize>,
    /// Number of tokens to keep at the start when a full context is shifted; `None` if the answer ends
    /// instead.
    pub keep: Option<usize>,
    /// Whether drafts may be verified for the request.
    pub speculate: bool,
    /// Tokens of prompt and answer dropped by context shifts so far.
    shifted: usize,
}

/// A request's scheduling history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Preemptions while it was not paused.
    pub preemptions: u32,
    /// Whether the request has held a sequence, so that its prompt has been charged.
    pub admitted: bool,
    /// Whether ageing raised the request to the most urgent class.
    pub aged: bool,
    /// Tokens of KV saved in host memory.
    pub saved: usize,
    /// Set after a failed KV operation: the request no longer shares KV.
    pub no_sharing: bool,
    /// Whether the request has waited for the prompt store, which it does at most once.
    pub read: bool,
}

impl SchedRequest {
    /// A request of the default class and user that arrives as number `id`. All of `tokens` is prompt.
    pub fn new(id: u64, tokens: Vec<TokenId>, len_max: usize) -> Self {
        Self {
            id: RequestId(id),
            arrival: id,
            prompt_len: tokens.len(),
            tokens,
            drafts: 0,
            len_max,
            adapters: None,
            namespace: Namespace::default(),
            priority: Priority::default(),
            user: UserId::default(),
            weight: 1.0,
            deadline: None,
            first_token_by: None,
            history: History::default(),
            group: RequestId(id),
            scored: None,
            keep: None,
            speculate: true,
            shifted: 0,
        }
    }

    /// The request of another answer to the same prompt, with the id `id`, in the same group.
    pub(crate) fn of_group(&self, id: RequestId) -> Self {
        Self { id, arrival: id.0, ..self.clone() }
    }

    /// Class used for order and preemption.
    pub fn effective_priority(&self) -> Priority {
        if self.history.aged { Priority::Interactive } else { self.priority }
    }

    /// The earliest deadline that still applies.
    pub(crate) fn expiry(&self) -> Option<Duration> {
        let first = self.first_token_by.filter(|_| self.awaits_first_token());
        self.deadline.into_iter().chain(first).min()
    }

    /// Known tokens: prompt, then answer so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens[..self.tokens.len() - self.drafts]
    }

    /// Known tokens, then the drafts that the current step verifies.
    pub fn tokens_and_drafts(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Position from which on rows of logits of the prompt are still needed; `None` if none is.
    pub fn unscored(&self) -> Option<usize> {
        self.scored.filter(|scored| *scored < self.prompt_len).map(|scored| scored.saturating_sub(1))
    }

    /// The known tokens whose KV, except for that of the last, may come from another sequence. Cached KV has
    /// no logits, so the range ends where rows are needed.
    pub fn shareable(&self) -> &[TokenId] {
        let end = self.unscored().map_or(usize::MAX, |position| position + 1);
        &self.tokens()[..end.min(self.tokens().len())]
    }

    /// Length of the answer so far.
    pub fn answer_len(&self) -> usize {
        self.tokens().len() + self.shifted - self.prompt_len
    }

    /// Position of the token at `index` in the sequence without context shifts. It increases from token to
    /// token.
    pub fn position(&self, index: usize) -> u64 {
        (index + self.shifted) as u64
    }

    /// Tokens dropped by context shifts.
    pub fn shifted(&self) -> usize {
        self.shifted
    }

    /// Whether no token has been generated yet.
    pub fn awaits_first_token(&self) -> bool {
        self.answer_len() == 0
    }

    /// Reserves memory for `more` tokens.
    pub(super) fn reserve(&mut self, more: usize) {
        self.tokens.reserve(more);
    }

    /// Rewinds the last `n` tokens of the answer. Returns the new length.
    pub(super) fn take_back(&mut self, n: usize) -> usize {
        debug_assert!(self.drafts == 0 && n <= self.answer_len());
        // A token was generated, even if none remains.
        self.first_token_by = None;
        self.tokens.truncate(self.tokens.len().saturating_sub(n).max(1));
        self.tokens.len()
    }

    /// Drops the older half of the tokens after the first `keep`. Returns the number of tokens before the
    /// gap.
    pub(super) fn shift(&mut self) -> usize {
        debug_assert_eq!(self.drafts, 0);
        let keep = self.keep.unwrap_or(0).min(self.tokens.len().saturating_sub(1));
        let dropped = (self.tokens.len() - keep).div_ceil(2).min(self.tokens.len() - 1);
        self.tokens.drain(keep..keep + dropped);
        self.shifted += dropped;
        if self.len_max != usize::MAX {
            self.len_max -= dropped;
        }
        keep
    }

    /// Repeats the context shifts of the answer so far, with a context of `window` tokens.
    pub(crate) fn replay_shifts(&mut self, window: usize) {
        if self.keep.is_none() {
            return;
        }
        for token in self.tokens.split_off(self.prompt_len) {
            self.tokens.push(token);
            if self.tokens.len() >= window {
                self.shift();
            }
        }
    }

    /// Appends drafts to the known tokens.
    pub(super) fn set_drafts(&mut self, drafts: &[TokenId]) {
        debug_assert_eq!(self.drafts, 0);
        self.tokens.extend_from_slice(drafts);
        self.drafts = drafts.len();
    }

    /// Drops the drafts.
    pub(super) fn clear_drafts(&mut self) {
        self.tokens.truncate(self.tokens.len() - self.drafts);
        self.drafts = 0;
    }

    /// Replaces the drafts by the generated tokens. Returns the length of the accepted draft prefix.
    pub(crate) fn append(&mut self, generated: &[TokenId]) -> usize {
        let drafts = &self.tokens[self.tokens.len() - self.drafts..];
        let accepted = drafts.iter().zip(generated).take_while(|(draft, token)| draft == token).count();
        self.clear_drafts();
        self.tokens.extend_from_slice(generated);
        accepted
    }
}
