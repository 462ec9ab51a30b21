//! Top-k: keeps the `k` most probable tokens (Fan, Lewis,
//! Dauphin: "Hierarchical neural story generation", 2018).

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

#[derive(Debug)]
pub(in crate::sampler) struct TopK {
    /// Above 0.
    pub k: usize,
}

impl Transform for TopK {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.keep_best(self.k);
    }
}
