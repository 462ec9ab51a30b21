//! Temperature: makes the distribution sharper or flatter.

use super::candidates::Candidates;
use super::transform::{Step, Transform};

#[derive(Debug)]
pub(super) struct Temperature {
    /// Finite and above 0.
    pub temperature: f32,
}

impl Transform for Temperature {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.scale_temperature(self.temperature);
    }
}
