//! Speculative decoding: proposers draft tokens, one forward pass verifies them.
//!
//! A pass computes the last token of a stream together with its drafts, and gives a row of logits for
//! each. The sampler draws from the rows in order, as it would without drafts; a draft is accepted if
//! it equals the token drawn in its place, and the first mismatch ends the run. Draws are a function
//! of (seed, position) and the rows, so with a batch-invariant backend answers equal those without
//! speculation at any temperature. Proposals only decide how many tokens a step yields.
//!
//! Every draft costs a row of the pass. The engine estimates the acceptance of drafts and measures the cost
//! of rows, and verifies the drafts that raise the expected tokens per second over all streams: none under
//! load.
//! [`EngineOptions::speculation`](crate::EngineOptions) says by default whether there are drafts;
//! [`Engine::speculate`](crate::Engine::speculate) sets other proposers.

mod automaton;
mod draft_model;
mod estimate;
mod mode;
mod prompt_lookup;
mod shared_index;
mod source;
mod speculation;
mod suffix_index;

pub use crate::schedule::prefix::Namespace;
pub use draft_model::{DraftModel, DraftModelSource, check_vocabulary};
pub(crate) use estimate::{Kind, Outcome};
pub use mode::SpeculationMode;
pub use prompt_lookup::PromptLookup;
pub use source::DraftSource;
pub use speculation::Speculation;
pub use suffix_index::SuffixIndex;

use crate::token::{RequestId, TokenId};
use std::fmt::Debug;
use std::time::Duration;

/// Proposes the next tokens of requests.
///
/// # Contract
///
/// - Any tokens may be proposed: wrong drafts cost time and never change an
///   answer. An id outside the vocabulary is dropped with all drafts after it.
/// - `tokens` of a request only grow between two calls, and never contain a draft that was rejected. If
///   tokens are taken back (banned strings) or dropped (a context shift), [`changed`](Self::changed) says so
///   first.
/// - A call runs on the engine's thread between two passes, so it should take far less time than a pass. It
///   is made whether the drafts are then verified or not.
pub trait Proposer: Send + Debug {
    /// Appends up to `max` tokens that may follow `tokens`, the prompt
    /// and answer so far, to the empty `drafts`. `max` is at least 1.
    fn propose(&mut self, id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>);

    /// Like [`propose`](Self::propose), which the default calls, for a request of this namespace: for
    /// proposers that draft from the texts of several requests.
    fn propose_in(
        &mut self,
        id: RequestId,
        namespace: &Namespace,
        tokens: &[TokenId],
        max: usize,
        drafts: &mut Vec<TokenId>,
    ) {
        let _ = namespace;
        self.propose(id, tokens, max, drafts);
    }

    /// Kind of the proposer, by which acceptance is estimated and counted.
    fn source(&self) -> DraftSource {
        DraftSource::Custom
    }

    /// Tokens of context on which the drafts of the last call of `propose` rest. Drafts with more of it are
    /// estimated apart from drafts with less.
    fn matched(&self) -> usize {
        0
    }

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

/// View of the answers that drafts are for.
#[doc(hidden)]
pub trait DraftContext {
    /// The number of `drafts` of a request, from the first, that may follow its tokens.
    fn plausible(&mut self, id: RequestId, drafts: &[TokenId]) -> usize;

    /// The token that the request's sampler draws from the `logits` of another model at `position`, behind
    /// the tokens `history`; `None` if there is none.
    fn draw(&mut self, id: RequestId, logits: &[f32], history: &[TokenId], position: u64) -> Option<TokenId>;

    /// The time of the engine's clock.
    fn now(&self) -> Duration;
}

/// No constraints, samplers and clock: for schedulers without answers.
impl DraftContext for () {
    fn plausible(&mut self, _id: RequestId, drafts: &[TokenId]) -> usize {
        drafts.len()
    }

    fn draw(
        &mut self,
        _id: RequestId,
        _logits: &[f32],
        _history: &[TokenId],
        _position: u64,
    ) -> Option<TokenId> {
        None
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}
