//! Speculative decoding: a proposer drafts tokens, one forward pass verifies them.
//!
//! A pass computes the last token of a stream and its drafts together, and gives a row of logits for each. The sampler
//! draws from one row after the other, as it would without drafts; a draft is accepted if it equals the token drawn in its
//! place, and the first that differs ends the run. Draws are a function of (seed, position) and the rows, so answers equal
//! those without speculation at any temperature, where the backend's rows do not depend on the batch. Proposals only
//! decide how many tokens a step gives.
//!
//! Off unless [`Engine::speculate`](crate::Engine::speculate) sets a proposer. Every draft costs a row of the pass, so
//! drafts that are seldom right make streams slower; the engine does not yet decide by itself when they pay.

mod prompt_lookup;

pub use prompt_lookup::PromptLookup;

use crate::token::{RequestId, TokenId};
use std::fmt::Debug;

/// Proposes the next tokens of requests.
///
/// # Contract
///
/// - Anything may be proposed: wrong tokens cost time and never change an answer. Ids outside the vocabulary, and those
///   after them, are dropped.
/// - `tokens` of a request only grow between two calls, and never contain a draft that was rejected.
/// - A call runs on the engine's thread between two passes, so it should take far less time than a pass.
pub trait Proposer: Send + Debug {
    /// Appends to `drafts`, which is empty, up to `max` tokens that may follow `tokens`: the prompt and the answer so far.
    /// `max` is at least 1.
    fn propose(&mut self, id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>);

    /// Learns that `accepted` of the request's last `drafted` drafts, from the first, were right.
    fn verified(&mut self, id: RequestId, drafted: usize, accepted: usize) {
        let _ = (id, drafted, accepted);
    }

    /// Learns that a request has ended. It may never have been proposed for.
    fn finished(&mut self, id: RequestId) {
        let _ = id;
    }
}

/// A proposer and its limits, for [`Engine::speculate`](crate::Engine::speculate).
///
/// ```
/// use exsa_core::speculate::{PromptLookup, Speculation};
///
/// let speculation = Speculation::new(PromptLookup::default()).drafts_max(6);
/// # let _ = speculation;
/// ```
#[derive(Debug)]
pub struct Speculation {
    proposer: Box<dyn Proposer>,
    drafts_max: usize,
    n_vocab: usize,
    drafts: Vec<TokenId>,
}

/// Default of [`Speculation::drafts_max`].
const DRAFTS_MAX: usize = 4;

impl Speculation {
    /// Speculation with the drafts of `proposer`, at most 4 per request and step.
    pub fn new(proposer: impl Proposer + 'static) -> Self {
        Self { proposer: Box::new(proposer), drafts_max: DRAFTS_MAX, n_vocab: usize::MAX, drafts: Vec::new() }
    }

    /// Sets the maximum number of drafts of a request in a step.
    #[must_use]
    pub fn drafts_max(mut self, drafts: usize) -> Self {
        self.drafts_max = drafts;
        self
    }

    /// Sets the size of the vocabulary.
    #[must_use]
    pub(crate) fn n_vocab(mut self, n_vocab: usize) -> Self {
        self.n_vocab = n_vocab;
        self
    }

    /// Up to `max` tokens of the vocabulary that may follow `tokens`.
    pub(crate) fn propose(&mut self, id: RequestId, tokens: &[TokenId], max: usize) -> &[TokenId] {
        let max = max.min(self.drafts_max);
        self.drafts.clear();
        if max > 0 {
            self.proposer.propose(id, tokens, max, &mut self.drafts);
        }
        let valid =
            self.drafts.iter().take(max).take_while(|draft| (**draft as usize) < self.n_vocab).count();
        &self.drafts[..valid]
    }

    pub(crate) fn verified(&mut self, id: RequestId, drafted: usize, accepted: usize) {
        self.proposer.verified(id, drafted, accepted);
    }

    pub(crate) fn finished(&mut self, id: RequestId) {
        self.proposer.finished(id);
    }
}
