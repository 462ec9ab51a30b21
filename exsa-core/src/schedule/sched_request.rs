//! A request as the scheduler sees it; the owner of its tokens.

use crate::priority::{Priority, UserId};
use crate::schedule::prefix::Namespace;
use crate::token::{RequestId, TokenId};
use std::time::Duration;

/// A request as the scheduler sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedRequest {
    /// The request.
    pub id: RequestId,
    /// Place in the order of arrival; kept when the request is preempted.
    pub arrival: u64,
    /// The prompt, the answer so far, and the drafts of the step in progress.
    tokens: Vec<TokenId>,
    /// Drafts at the end of `tokens`.
    drafts: usize,
    /// Tokens of the prompt; the answer begins behind them.
    pub prompt_len: usize,
    /// Tokens, prompt included, that the request's limit allows; `usize::MAX` without a limit. The context may end it
    /// earlier.
    pub len_max: usize,
    /// With whom it may share KV.
    pub namespace: Namespace,
    /// Its class.
    pub priority: Priority,
    /// Whose it is.
    pub user: UserId,
    /// The user's share, relative to others'.
    pub weight: f32,
    /// When the request ends unfinished, in the engine's time.
    pub deadline: Option<Duration>,
    /// When it ends if no token was generated until then.
    pub first_token_by: Option<Duration>,
    /// What became of it so far.
    pub history: History,
}

/// What a request has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Times it lost its sequence to another request while it wanted to go on.
    pub preemptions: u32,
    /// Whether it held a sequence before, so that its prompt has been charged.
    pub admitted: bool,
    /// Whether its class's turn by age admitted it: it then counts as of the most urgent class.
    pub aged: bool,
    /// Tokens of KV saved in host memory.
    pub saved: usize,
    /// Sharing went wrong for it: it computes everything itself.
    pub no_sharing: bool,
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
            namespace: Namespace::default(),
            priority: Priority::default(),
            user: UserId::default(),
            weight: 1.0,
            deadline: None,
            first_token_by: None,
            history: History::default(),
        }
    }

    /// Its class as it counts for order and preemption.
    pub fn effective_priority(&self) -> Priority {
        if self.history.aged { Priority::Interactive } else { self.priority }
    }

    /// When it ends if it gets nothing until then.
    pub(crate) fn expiry(&self) -> Option<Duration> {
        let first = self.first_token_by.filter(|_| self.awaits_first_token());
        self.deadline.into_iter().chain(first).min()
    }

    /// The known tokens: the prompt, then the answer so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens[..self.tokens.len() - self.drafts]
    }

    /// The known tokens, then the drafts that the step in progress verifies.
    pub fn tokens_and_drafts(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Tokens of the answer so far.
    pub fn answer_len(&self) -> usize {
        self.tokens().len() - self.prompt_len
    }

    /// Whether no token was generated yet.
    pub fn awaits_first_token(&self) -> bool {
        self.answer_len() == 0
    }

    /// Takes memory for `more` tokens.
    pub(super) fn reserve(&mut self, more: usize) {
        self.tokens.reserve(more);
    }

    /// Puts drafts behind the known tokens.
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

    /// Puts generated tokens in place of the drafts; how many of the drafts, from the first, are among them.
    pub(super) fn append(&mut self, generated: &[TokenId]) -> usize {
        let drafts = &self.tokens[self.tokens.len() - self.drafts..];
        let accepted = drafts.iter().zip(generated).take_while(|(draft, token)| draft == token).count();
        self.clear_drafts();
        self.tokens.extend_from_slice(generated);
        accepted
    }
}
