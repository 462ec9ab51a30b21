//! Top-k: keeps the `k` most probable tokens (Fan, Lewis,
//! Dauphin: "Hierarchical neural story generation", 2018).

use super::candidates::Candidates;
use super::transform::{Step, Transform};

#[derive(Debug)]
pub(super) struct TopK {
    /// Above 0.
    pub k: usize,
}

impl Transform for TopK {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.keep_best(self.k);
    }
}
