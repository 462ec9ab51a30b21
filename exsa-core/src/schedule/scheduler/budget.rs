//! Prefill budget of steps in which streams decode.

use super::costs::StepCost;
use std::time::Duration;

/// Determines the prefill budget of a step in which streams decode, from measured step costs.
pub trait BatchPolicy: Send {
    /// Prefill tokens of a step with `decodes` decodes; at least 1.
    fn prefill_budget(&self, decodes: usize) -> usize;

    /// Records the cost of a step.
    fn observe(&mut self, step: &StepCost);
}

/// A constant budget.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub usize);

impl BatchPolicy for Fixed {
    fn prefill_budget(&self, _decodes: usize) -> usize {
        self.0.max(1)
    }

    fn observe(&mut self, _step: &StepCost) {}
}

/// A budget that keeps the 95th percentile of the inter-token latency at a target.
///
/// The cost model of a step is `base + per_token * tokens`, fitted by least squares with
/// exponential forgetting. A factor that tracks the quantile scales the time limit
/// (stochastic approximation, Robbins and Monro 1951): a step over target shrinks the factor
/// 19 times as much as a step within target grows it, which balances at 5 % over target.
///
/// If decoding alone takes more than half the target, as on a slow machine, the target is twice the decode
/// time instead: streams keep half their speed, and prefill gets the other half rather than next to nothing.
#[derive(Debug)]
pub struct Adaptive {
    target: f64,
    chunk_max: usize,
    fit: Fit,
    factor: f64,
}

/// Minimum chunk, so that prefill never stops.
const CHUNK_MIN: usize = 16;
/// Share of its weight that a step loses with each later step.
const FORGET: f64 = 0.02;
/// Share of its value that the factor loses with a step over the target, divided by 0.95.
const CORRECTION: f64 = 0.1;
const FACTOR: std::ops::RangeInclusive<f64> = 0.1..=1.0;

impl Adaptive {
    /// A policy for this target, with at most `chunk_max` tokens at once.
    pub fn new(target: Duration, chunk_max: usize) -> Self {
        Self { target: target.as_secs_f64(), chunk_max: chunk_max.max(1), fit: Fit::default(), factor: 1.0 }
    }

    /// Time limit of a step with `decodes` decodes, in seconds.
    fn limit(&self, decodes: usize) -> f64 {
        let decoding = self.fit.line().map_or(0.0, |(base, per_token)| base + per_token * decodes as f64);
        self.target.max(2.0 * decoding)
    }
}

impl BatchPolicy for Adaptive {
    fn prefill_budget(&self, decodes: usize) -> usize {
        let Some((base, per_token)) = self.fit.line() else { return self.chunk_max };
        let left = self.limit(decodes) * self.factor - base - per_token * decodes as f64;
        let tokens = (left / per_token).clamp(0.0, self.chunk_max as f64) as usize;
        tokens.max(CHUNK_MIN.min(self.chunk_max))
    }

    fn observe(&mut self, step: &StepCost) {
        let seconds = step.elapsed.as_secs_f64();
        self.fit.add(step.tokens as f64, seconds);
        // Only steps with both prefill and decodes are informative for the prefill budget.
        if step.decodes == 0 || step.prefill() == 0 {
            return;
        }
        let change = if seconds > self.limit(step.decodes) {
            1.0 - 0.95 * CORRECTION
        } else {
            1.0 + 0.05 * CORRECTION
        };
        self.factor = (self.factor * change).clamp(*FACTOR.start(), *FACTOR.end());
    }
}

/// Least squares of a line with exponential forgetting.
#[derive(Debug, Default)]
struct Fit {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Fit {
    fn add(&mut self, x: f64, y: f64) {
        self.weight = self.weight.mul_add(1.0 - FORGET, 1.0);
        let rate = 1.0 / self.weight;
        for (mean, value) in
            [(&mut self.x, x), (&mut self.y, y), (&mut self.xx, x * x), (&mut self.xy, x * y)]
        {
            *mean += (value - *mean) * rate;
        }
    }

    /// Seconds per pass and per token; `None` before the first measurement.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 || self.x <= 0.0 || self.y <= 0.0 {
            return None;
        }
        let variance = self.xx - self.x * self.x;
        // If all steps have the same size, all cost is attributed to tokens, which errs towards short steps.
        let flat = (0.0, self.y / self.x);
        if variance < 1e-3 * self.xx {
            return Some(flat);
        }
        let slope = (self.xy - self.x * self.y) / variance;
        let base = self.y - slope * self.x;
        Some(if slope > 0.0 && base >= 0.0 { (base, slope) } else { flat })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 5 ms and 1 ms a token; the fifth of them takes half as much again.
    #[test]
    fn the_budget_settles_where_one_step_in_twenty_is_over_the_target() {
        let mut policy = Adaptive::new(Duration::from_millis(100), 512);
        let (mut over, mut steps) = (0, 0);
        for i in 0..4000u32 {
            let decodes = 10;
            let tokens = decodes + policy.prefill_budget(decodes);
            let slow = if i * 7919 % 100 < 20 { 1.5 } else { 1.0 };
            let seconds = (0.005 + 0.001 * tokens as f64) * slow;
            policy.observe(&StepCost {
                tokens,
                decodes,
                drafts: 0,
                elapsed: Duration::from_secs_f64(seconds),
            });
            if i >= 1000 {
                steps += 1;
                over += u32::from(seconds > 0.1);
            }
        }
        let share = f64::from(over) / f64::from(steps);
        assert!((0.02..=0.08).contains(&share), "{share} of the steps are over the target");
    }

    #[test]
    fn a_budget_is_there_before_anything_is_known_and_when_decodes_alone_take_too_long() {
        let mut policy = Adaptive::new(Duration::from_millis(10), 256);
        assert_eq!(policy.prefill_budget(4), 256);
        for tokens in [4, 40, 4, 50].into_iter().cycle().take(40) {
            let elapsed = Duration::from_millis(50 + tokens as u64);
            policy.observe(&StepCost { tokens, decodes: 4, drafts: 0, elapsed });
        }
        // The decodes take 54 ms, and prefill gets as much again.
        let budget = policy.prefill_budget(4);
        assert!((50..=54).contains(&budget), "{budget}");
    }
}
