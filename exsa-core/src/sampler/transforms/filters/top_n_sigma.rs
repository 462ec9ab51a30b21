//! Top-nσ: keeps tokens whose logit is at most `n` standard deviations below the best (Tang, Liu, Xu, Li:
//! "Top-nσ: not all logits are you need", 2024, arXiv:2411.07641). Temperature does not change which tokens
//! stay.

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

#[derive(Debug)]
pub(in crate::sampler) struct TopNSigma {
    /// Above 0.
    pub n: f32,
}

impl Transform for TopNSigma {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.keep_sigma(self.n);
    }
}
