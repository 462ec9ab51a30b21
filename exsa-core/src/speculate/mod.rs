//! Speculative decoding: a proposer drafts tokens, one forward pass verifies them.
//!
//! A pass computes the last token of a stream together with its drafts, and gives a row of logits for
//! each. The sampler draws from the rows in order, as it would without drafts; a draft is accepted if
//! it equals the token drawn in its place, and the first mismatch ends the run. Draws are a function
//! of (seed, position) and the rows, so with a batch-invariant backend answers equal those without
//! speculation at any temperature. Proposals only decide how many tokens a step yields.
//!
//! Off unless [`Engine::speculate`](crate::Engine::speculate) sets a proposer. Every draft costs a row of
//! the pass, so a low acceptance rate makes streams slower; the engine does not adapt the number of drafts.

mod prompt_lookup;

pub use prompt_lookup::PromptLookup;

use crate::token::{RequestId, TokenId};
use std::fmt::Debug;

/// Proposes the next tokens of requests.
///
/// # Contract
///
/// - Any tokens may be proposed: wrong drafts cost time and never change an
///   answer. An id outside the vocabulary is dropped with all drafts after it.
/// - `tokens` of a request only grow between two calls, and never contain a draft that was rejected. If
///   tokens are taken back (banned strings) or dropped (a context shift), [`changed`](Self::changed) says so
///   first.
/// - A call runs on the engine's thread between two passes, so it should take far less time than a pass.
pub trait Proposer: Send + Debug {
    /// Appends up to `max` tokens that may follow `tokens`, the prompt
    /// and answer so far, to the empty `drafts`. `max` is at least 1.
    fn propose(&mut self, id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>);

    /// Reports that the first `accepted` of the request's last `drafted` drafts were accepted.
    fn verified(&mut self, id: RequestId, drafted: usize, accepted: usize) {
        let _ = (id, drafted, accepted);
    }

    /// Reports that only the first `kept` of the request's tokens are as they were in the last call
    /// of `propose`: the others were taken back or dropped.
    fn changed(&mut self, id: RequestId, kept: usize) {
        let _ = (id, kept);
    }

    /// Reports the end of a request, even if `propose` was never called for it.
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
    /// Creates speculation with `proposer` and at most 4 drafts per request and step.
    pub fn new(proposer: impl Proposer + 'static) -> Self {
        Self { proposer: Box::new(proposer), drafts_max: DRAFTS_MAX, n_vocab: usize::MAX, drafts: Vec::new() }
    }

    /// Sets the maximum drafts per request and step.
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

    pub(crate) fn changed(&mut self, id: RequestId, kept: usize) {
        self.proposer.changed(id, kept);
    }

    pub(crate) fn finished(&mut self, id: RequestId) {
        self.proposer.finished(id);
    }
}
