//! Repetition, frequency and presence penalties.

use super::Window;
use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};

/// Lowers the probability of tokens that occur among the last tokens of the sequence.
///
/// `repetition` divides a positive logit and multiplies a negative one (Keskar et al.: "CTRL", 2019,
/// with the usual sign handling); then `frequency` times the number of occurrences and `presence`
/// are subtracted, as OpenAI's API defines them. All three use the same window.
#[derive(Debug)]
pub(in crate::sampler) struct Penalties {
    pub repetition: f32,
    pub frequency: f32,
    pub presence: f32,
    pub window: Window,
    /// Whether to count tokens of the prompt.
    pub prompt: bool,
}

impl Transform for Penalties {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>) {
        let Self { repetition, frequency, presence, .. } = *self;
        let skipped = if self.prompt { 0 } else { step.prompt_len() };
        let tokens = step.history().get(skipped..).unwrap_or_default();
        // Candidates keep the logits from before temperature, but penalties apply to the logits after
        // temperature.
        let scale = candidates.scale();
        for &(token, count) in self.window.counts(tokens) {
            candidates.change(token, |logit| {
                let logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
                logit - (count as f32 * frequency + presence) / scale
            });
        }
    }
}
