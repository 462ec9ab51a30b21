//! The seam between the sampler and what shapes its choice.

use super::candidates::Candidates;
use super::random::Random;
use crate::token::TokenId;
use std::fmt::Debug;

/// One link of the sampler's chain. A new one is a file beside this one and a line in
/// [`SamplingParams::validate`](super::SamplingParams::validate), which decides on the order.
///
/// # Contract
///
/// What a transform does depends on its parameters, the candidates and the step alone. It may keep what spares
/// it work in the next call, as counts, but must give the same result without. It never makes a logit NaN.
pub(super) trait Transform: Debug + Send {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>);
}

/// What is known when a token is sampled, beside the logits.
#[derive(Debug)]
pub(super) struct Step<'a> {
    /// The tokens of the sequence so far, prompt and generated.
    pub history: &'a [TokenId],
    /// The random numbers of this position. The final draw takes the first that no transform took.
    pub random: Random,
}
