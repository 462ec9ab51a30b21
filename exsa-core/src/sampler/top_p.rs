//! Top-p, or nucleus sampling: the fewest tokens that have a given share of the probability (Holtzman et al.: "The
//! curious case of neural text degeneration", 2020).

use super::candidates::Candidates;
use super::transform::{Step, Transform};

#[derive(Debug)]
pub(super) struct TopP {
    /// In `0..=1`.
    pub share: f32,
}

impl Transform for TopP {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.keep_mass(f64::from(self.share));
    }
}
