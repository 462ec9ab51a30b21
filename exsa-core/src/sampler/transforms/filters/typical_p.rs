//! Locally typical sampling: keeps the tokens whose surprise is nearest to the entropy, up to a given
//! probability mass (Meister, Pimentel, Wiher, Cotterell: "Locally typical sampling", 2022,
//! arXiv:2202.00666).

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

#[derive(Debug)]
pub(in crate::sampler) struct TypicalP {
    /// In `0..=1`.
    pub share: f32,
}

impl Transform for TypicalP {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.keep_typical(f64::from(self.share));
    }
}
