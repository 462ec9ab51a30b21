//! Adaptive-p: favours tokens near a target probability, adjusted by feedback so that the probabilities of
//! the chosen tokens average to the target (MrJackSpade and ddh0, llama.cpp pull request 17927, 2025).

use super::observations::Observations;
use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Accepted, Step, Transform};
use crate::token::TokenId;

/// Logit of a token whose probability is exactly the target.
const PEAK: f32 = 5.0;
/// Slope of the logits over the distance from the target.
const SHARPNESS: f32 = 10.0;
/// Distance from the target at which the curve turns from quadratic to linear.
const WIDTH: f32 = 0.3;
/// Probabilities below this count as 0 in the average: they would not change it noticeably.
const LEAST: f64 = 1.0 / 16_384.0;

/// The target of a step is twice the target less the average probability of the tokens so far, an exponential
/// moving average that starts at the target. Probabilities are those before this transform.
#[derive(Debug)]
pub(in crate::sampler) struct AdaptiveP {
    target: f32,
    decay: f32,
    /// Numerator and denominator of the average after each accepted token.
    averages: Vec<(f32, f32)>,
    probabilities: Observations,
    /// The candidates of the last step with their probabilities, ascending by id, without those below
    /// [`LEAST`].
    given: Vec<(TokenId, f32)>,
}

impl AdaptiveP {
    /// `target` is in `0..=1`, `decay` in `0..=0.99`.
    pub(in crate::sampler) fn new(target: f32, decay: f32) -> Self {
        let (averages, given) = (Vec::new(), Vec::new());
        Self { target, decay, averages, probabilities: Observations::default(), given }
    }

    fn average(&self) -> (f32, f32) {
        let start = || (self.target / (1.0 - self.decay), 1.0 / (1.0 - self.decay));
        self.averages.last().copied().unwrap_or_else(start)
    }
}

impl Transform for AdaptiveP {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        let (sum, weight) = self.average();
        let target = (2.0 * self.target - sum / weight).clamp(0.0, 1.0);
        self.given.clear();
        candidates.visit_probable(LEAST, |id, probability| self.given.push((id, probability)));
        candidates.map_probabilities(|probability| {
            let distance = (probability - target).abs() * (1.0 / WIDTH);
            PEAK - SHARPNESS * distance * distance / (1.0 + distance)
        });
    }

    fn accept(&mut self, accepted: &Accepted) {
        let given = accepted.drawn.then(|| {
            let found = self.given.binary_search_by_key(&accepted.token, |&(id, _)| id);
            found.map_or(0.0, |i| self.given[i].1)
        });
        let (sum, weight) = self.average();
        let average = match self.probabilities.accept(given) {
            Some(p) if (0.0..=1.0).contains(&p) => (p + self.decay * sum, 1.0 + self.decay * weight),
            _ => (sum, weight),
        };
        self.averages.push(average);
    }

    fn rollback(&mut self, n: usize) {
        self.averages.truncate(self.averages.len().saturating_sub(n));
        self.probabilities.rollback(n);
    }

    fn observations(&self) -> Option<&[f32]> {
        Some(self.probabilities.values())
    }

    fn restore(&mut self, observations: &[f32]) {
        self.probabilities.restore(observations);
    }
}
