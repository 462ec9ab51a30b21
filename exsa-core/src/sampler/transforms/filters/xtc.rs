//! XTC, "exclude top choices": with a given chance, removes all tokens that reach a threshold of probability
//! but the least probable of them (p-e-w, text-generation-webui pull request 6335, 2024).

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

#[derive(Debug)]
pub(in crate::sampler) struct Xtc {
    /// Chance of an exclusion, above 0 and at most 1.
    pub probability: f32,
    /// In `0..=0.5`; two tokens cannot both exceed 0.5.
    pub threshold: f32,
}

impl Transform for Xtc {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>) {
        if step.random() < f64::from(self.probability) {
            let reaching = candidates.count_probable(f64::from(self.threshold));
            candidates.remove_best(reaching.saturating_sub(1));
        }
    }
}
