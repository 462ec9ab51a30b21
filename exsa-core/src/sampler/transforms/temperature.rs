//! Temperature: makes the distribution sharper or flatter.

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

#[derive(Debug)]
pub(in crate::sampler) struct Temperature {
    /// Finite and above 0.
    pub temperature: f32,
}

impl Transform for Temperature {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.scale_temperature(self.temperature);
    }
}
