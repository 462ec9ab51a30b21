//! Mirostat 1: top-k with a `k` that feedback adjusts, so that the surprise of the text approaches a target
//! (Basu, Ramachandran, Keskar, Varshney: "Mirostat: a neural text decoding algorithm that directly controls
//! perplexity", 2021, arXiv:2007.14966).

use super::surprise::Surprise;
use crate::sampler::candidates::Candidates;
use crate::sampler::exp::exp_f64;
use crate::sampler::ln::ln;
use crate::sampler::transform::{Accepted, Step, Transform};
use std::f64::consts::LN_2;

/// Number of best tokens from which the exponent of Zipf's law is estimated (`m` in the paper).
const ESTIMATED: usize = 100;

#[derive(Debug)]
pub(in crate::sampler) struct Mirostat {
    pub surprise: Surprise,
    pub n_vocab: usize,
}

impl Mirostat {
    /// The number of tokens to keep: `((s - 1) * 2^mu / (1 - n^(1 - s)))^(1 / s)`, computed by logarithms.
    fn k(&self, s: f64) -> usize {
        let n = self.n_vocab as f64;
        let log_n = ln(n);
        let epsilon = s - 1.0;
        // (s - 1) / (1 - n^(1 - s)) tends to 1 / ln n as s tends to 1.
        let ratio = if epsilon.abs() < 1e-6 {
            -ln(log_n.max(f64::MIN_POSITIVE))
        } else {
            let power = exp_f64(epsilon.abs() * log_n);
            // With a negative exponent, numerator and denominator are multiplied by -1.
            let denominator = if epsilon > 0.0 { 1.0 - 1.0 / power } else { power - 1.0 };
            ln(epsilon.abs()) - ln(denominator.max(f64::MIN_POSITIVE))
        };
        let log_k = (ratio + f64::from(self.surprise.bound()) * LN_2) / s;
        match log_k {
            // Also covers s = 0 (all logits are equal), where the quotient is infinite or NaN.
            log_k if log_k >= log_n => self.n_vocab,
            log_k if log_k > 0.0 => (exp_f64(log_k) as usize).clamp(1, self.n_vocab),
            _ => 1,
        }
    }
}

impl Transform for Mirostat {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        // Least squares of b = s * t through the origin, as in the paper: t are the logarithms of the ratios
        // of neighbouring ranks, b those of the ratios of their probabilities.
        let (mut products, mut squares) = (0.0, 0.0);
        let scale = f64::from(candidates.scale());
        let mut last = None;
        for ((_, logit), rank) in candidates.settled_top(ESTIMATED).zip(1u32..) {
            if let Some((before, t)) = last.replace((logit, ln((f64::from(rank) + 1.0) / f64::from(rank)))) {
                products += t * (f64::from(before) - f64::from(logit)) * scale;
                squares += t * t;
            }
        }
        let k = if squares > 0.0 { self.k(products / squares) } else { 1 };
        candidates.keep_best(k);
    }

    fn accept(&mut self, accepted: &Accepted) {
        self.surprise.accept(accepted);
    }

    fn rollback(&mut self, n: usize) {
        self.surprise.rollback(n);
    }

    fn needs_logprob(&self) -> bool {
        true
    }

    fn observations(&self) -> Option<&[f32]> {
        Some(self.surprise.observations())
    }

    fn restore(&mut self, observations: &[f32]) {
        self.surprise.restore(observations);
    }
}
