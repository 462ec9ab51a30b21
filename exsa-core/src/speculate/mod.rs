//! Speculative decoding: proposers draft tokens, one forward pass verifies them.
//!
//! A pass computes the last token of a stream together with its drafts, and yields a row of logits for each.
//! The sampler draws from the rows in order, as it would without drafts; a draft is accepted if it equals the
//! token drawn at its position, and the first mismatch ends the run. Draws are a function of (seed, position)
//! and the rows, so with a batch-invariant backend, answers are identical to those without speculation, at
//! any temperature. Proposals only decide how many tokens a step yields.
//!
//! Every draft costs a row of the pass. The engine estimates the acceptance of drafts and measures the cost
//! of rows, and verifies those drafts that raise the expected tokens per second over all streams: under high
//! load, none. [`EngineOptions::speculation`](crate::EngineOptions) enables the default proposers;
//! [`Engine::speculate`](crate::Engine::speculate) sets others.

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
/// - Any tokens may be proposed: wrong drafts cost time but never change an answer. An id outside the
///   vocabulary is dropped with all drafts after it.
/// - `tokens` of a request only grow between two calls, and never contain a draft that was rejected. If
///   tokens are rewound (banned strings) or dropped (context shift), [`changed`](Self::changed) is called
///   first.
/// - A call runs on the engine's thread between two passes, so it should take far less time than a pass. It
///   is made even if the drafts are not verified afterwards.
pub trait Proposer: Send + Debug {
    /// Appends up to `max` tokens that may follow `tokens`, the prompt
    /// and answer so far, to the empty `drafts`. `max` is at least 1.
    fn propose(&mut self, id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>);

    /// Like [`propose`](Self::propose), with the namespace of the request, for proposers that draft from the
    /// texts of several requests. The default implementation calls `propose`.
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

    /// Kind of the proposer. Acceptance is estimated and counted per kind.
    fn source(&self) -> DraftSource {
        DraftSource::Custom
    }

    /// Number of context tokens that support the drafts of the last call of `propose`. The acceptance of
    /// drafts with long and short contexts is estimated separately.
    fn matched(&self) -> usize {
        0
    }

    /// Reports that the first `accepted` of the request's last `drafted` drafts were accepted.
    fn verified(&mut self, id: RequestId, drafted: usize, accepted: usize) {
        let _ = (id, drafted, accepted);
    }

    /// Reports that only the first `kept` of the request's tokens are unchanged since the last call of
    /// `propose`: the others were rewound or dropped.
    fn changed(&mut self, id: RequestId, kept: usize) {
        let _ = (id, kept);
    }

    /// Reports the end of a request, even if `propose` was never called for it.
    fn finished(&mut self, id: RequestId) {
        let _ = id;
    }
}

/// Access to the answers for which drafts are planned.
#[doc(hidden)]
pub trait DraftContext {
    /// The number of `drafts` of a request, from the first, that may follow its tokens.
    fn plausible(&mut self, id: RequestId, drafts: &[TokenId]) -> usize;

    /// The token that the request's sampler draws from the `logits` of another model at `position`, after the
    /// tokens `history`; `None` if no token can be drawn.
    fn draw(&mut self, id: RequestId, logits: &[f32], history: &[TokenId], position: u64) -> Option<TokenId>;

    /// Current time of the engine's clock.
    fn now(&self) -> Duration;
}

/// Without constraints, samplers or clock, for schedulers without answers.
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
