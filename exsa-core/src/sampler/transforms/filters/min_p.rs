//! Min-p: keeps tokens whose probability is at least a given ratio of the best token's (Nguyen
//! et al.: "Turning up the heat: min-p sampling for creative and coherent LLM outputs", 2024).

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

#[derive(Debug)]
pub(in crate::sampler) struct MinP {
    /// In `0..=1`.
    pub ratio: f32,
}

impl Transform for MinP {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.keep_ratio(self.ratio);
    }
}
