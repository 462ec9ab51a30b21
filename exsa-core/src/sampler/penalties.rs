//! Repetition, frequency and presence penalties.

use super::candidates::Candidates;
use super::transform::{Step, Transform};
use super::window::Window;

/// Lowers the probability of tokens that occur among the last tokens of the sequence, prompt and generated.
///
/// `repetition` divides a positive logit and multiplies a negative one (Keskar et al.: "CTRL", 2019,
/// with the usual sign handling); then `frequency` times the number of occurrences and `presence`
/// are subtracted, as OpenAI's API defines them. All three use the same window, the prompt included.
#[derive(Debug)]
pub(super) struct Penalties {
    pub repetition: f32,
    pub frequency: f32,
    pub presence: f32,
    pub window: Window,
}

impl Transform for Penalties {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>) {
        let Self { repetition, frequency, presence, .. } = *self;
        for &(token, count) in self.window.counts(step.history()) {
            candidates.change(token, |logit| {
                let logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
                logit - (count as f32 * frequency + presence)
            });
        }
    }
}
