//! Top-p, or nucleus sampling: keeps the smallest set of best tokens with a given
//! probability mass (Holtzman et al.: "The curious case of neural text degeneration", 2020).

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

#[derive(Debug)]
pub(in crate::sampler) struct TopP {
    /// In `0..=1`.
    pub share: f32,
}

impl Transform for TopP {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.keep_mass(f64::from(self.share));
    }
}
