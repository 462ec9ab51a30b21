//! Operations by probability: thresholds, entropy, and a map to new logits.

use super::{CHUNK, Candidate, Candidates, chunk_best, exp, moments};
use crate::sampler::ln::ln;
use crate::token::TokenId;

impl Candidates<'_> {
    /// Entropy of the distribution at the current temperature, in nats; 0 without candidates.
    pub fn entropy(&mut self) -> f64 {
        if !self.settle() {
            return 0.0;
        }
        let (mass, product) = self.moments();
        (ln(mass) - product / mass).max(0.0)
    }

    /// Keeps the candidates whose probability at the current temperature is at least `min`; if none
    /// reaches it, the best candidate.
    pub fn keep_probable(&mut self, min: f64) {
        let Some(floor) = self.floor_of_probability(min) else { return };
        if self.best().is_some_and(|(_, best)| floor > best) {
            self.keep_best(1);
        } else {
            self.list(floor);
        }
    }

    /// Number of candidates whose probability at the current temperature is at least `min`.
    pub fn count_probable(&mut self, min: f64) -> usize {
        let Some(floor) = self.floor_of_probability(min) else { return self.len() };
        let mut count = 0;
        self.visit(floor, |_| count += 1);
        count
    }

    /// Visits the candidates whose probability at the current temperature is at least `min`, ascending by id,
    /// with that probability.
    pub(in crate::sampler) fn visit_probable(&mut self, min: f64, mut visit: impl FnMut(TokenId, f32)) {
        let floor = self.floor_of_probability(min).unwrap_or(f32::MIN);
        let Some((_, best)) = self.best() else { return };
        let (scale, share) = (self.scale, (1.0 / self.mass(best)) as f32);
        self.visit(floor, |c| visit(c.id, exp((c.logit - best) * scale) * share));
    }

    /// Replaces each candidate's logit by a function of its probability at the current temperature, and the
    /// temperature by 1. The function must not return NaN.
    pub(in crate::sampler) fn map_probabilities(&mut self, map: impl Fn(f32) -> f32) {
        if !self.settle() {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        let (scale, share) = (self.scale, (1.0 / self.mass(best)) as f32);
        self.scale = 1.0;
        let new = |logit: f32| {
            let mapped = map(exp((logit - best) * scale) * share);
            if logit > f32::NEG_INFINITY { mapped } else { f32::NEG_INFINITY }
        };
        if self.listed {
            self.buffers.list.iter_mut().for_each(|c| c.logit = new(c.logit));
            return;
        }
        self.own_row();
        let chunks = self.buffers.row.chunks_mut(CHUNK).zip(&mut self.buffers.bests);
        for (chunk, best) in chunks {
            chunk.iter_mut().for_each(|logit| *logit = new(*logit));
            *best = chunk_best(chunk);
        }
    }

    /// The smallest logit whose probability is at least `min`; `None` if this holds for every candidate, or
    /// without candidates.
    fn floor_of_probability(&mut self, min: f64) -> Option<f32> {
        if min.is_nan() || min <= 0.0 || !self.settle() {
            return None;
        }
        let (_, best) = self.best()?;
        let least = ln((min * self.mass(best)).max(f64::MIN_POSITIVE)) / f64::from(self.scale);
        Some((f64::from(best) + least) as f32)
    }

    /// Sums of w = e^y and of w y over the candidates, where y is the distance from the best logit at the
    /// current temperature.
    pub(super) fn moments(&self) -> (f64, f64) {
        let Some((_, best)) = self.best() else { return (0.0, 0.0) };
        let add = |(mass, product): (f64, f64), (m, p): (f64, f64)| (mass + m, product + p);
        if self.listed {
            let one = |c: &Candidate| moments(&[c.logit], best, self.scale);
            self.buffers.list.iter().map(one).fold((0.0, 0.0), add)
        } else {
            self.row().chunks(CHUNK).map(|chunk| moments(chunk, best, self.scale)).fold((0.0, 0.0), add)
        }
    }
}
