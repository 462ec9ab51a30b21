//! Mirostat's feedback: the largest surprise allowed, corrected by the surprise of each token.

use super::observations::Observations;
use crate::sampler::transform::Accepted;
use std::f32::consts::LOG2_E;

/// Controller of both versions of mirostat. Surprise is the negative binary logarithm of a probability.
///
/// Starts with the bound `mu = 2 * tau` (the paper's choice). A token with surprise `s` under the
/// distribution that it was drawn from changes the bound to `mu - eta * (s - tau)`. A token of unknown
/// probability leaves it unchanged.
#[derive(Debug)]
pub(in crate::sampler) struct Surprise {
    /// Target surprise in bits.
    tau: f32,
    /// Learning rate.
    eta: f32,
    /// The bound after each accepted token.
    bounds: Vec<f32>,
    /// Log probabilities of the accepted tokens.
    logprobs: Observations,
}

impl Surprise {
    pub(in crate::sampler) fn new(tau: f32, eta: f32) -> Self {
        Self { tau, eta, bounds: Vec::new(), logprobs: Observations::default() }
    }

    /// The bound `mu`, in bits.
    pub(super) fn bound(&self) -> f32 {
        self.bounds.last().copied().unwrap_or(2.0 * self.tau)
    }

    pub(super) fn accept(&mut self, accepted: &Accepted) {
        let bound = self.bound();
        let bound = match self.logprobs.accept(accepted.logprob) {
            Some(logprob) if logprob.is_finite() && logprob <= 0.0 => {
                bound - self.eta * (-logprob * LOG2_E - self.tau)
            }
            _ => bound,
        };
        self.bounds.push(bound);
    }

    pub(super) fn rollback(&mut self, n: usize) {
        self.bounds.truncate(self.bounds.len().saturating_sub(n));
        self.logprobs.rollback(n);
    }

    pub(super) fn observations(&self) -> &[f32] {
        self.logprobs.values()
    }

    pub(super) fn restore(&mut self, logprobs: &[f32]) {
        self.logprobs.restore(logprobs);
    }
}
