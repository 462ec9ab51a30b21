//! Estimates the cost of a worker's passes from the counters of its heartbeats.

use exsa_core::stats::EngineStats;
use std::time::Duration;

/// Factor by which a pass may exceed its expected cost.
const ALLOWED: u32 = 10;
/// Mean tokens per pass from which a pass measures the cost of prompt tokens.
const PREFILL_TOKENS: u64 = 8;
/// Weight of the past when the cost decreases.
const DECAY: f64 = 0.95;

/// Measured costs. Each increases immediately and decreases slowly, so a slow pass after many fast ones is
/// expected.
#[derive(Debug, Default)]
pub(super) struct StepCost {
    last: Counted,
    /// Seconds per pass.
    step: Option<f64>,
    /// Seconds per token in passes with few tokens: an upper bound for prompt tokens.
    token: Option<f64>,
    /// Seconds per prompt token.
    prefill: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    passes: u64,
    tokens: u64,
    time: Duration,
}

impl StepCost {
    pub(super) fn observe(&mut self, stats: &EngineStats) {
        let now = Counted {
            passes: stats.steps + stats.embed_passes,
            tokens: stats.tokens_computed + stats.tokens_embedded,
            time: stats.step_times.forward + stats.step_times.embed + stats.step_times.sample,
        };
        let last = std::mem::replace(&mut self.last, now);
        let passes = now.passes.saturating_sub(last.passes);
        if passes == 0 {
            return;
        }
        let tokens = now.tokens.saturating_sub(last.tokens).max(1);
        let time = now.time.saturating_sub(last.time).as_secs_f64();
        raise(&mut self.step, time / passes as f64);
        let per_token = time / tokens as f64;
        raise(if tokens >= passes * PREFILL_TOKENS { &mut self.prefill } else { &mut self.token }, per_token);
    }

    /// Returns the time that a pass over at most `prompt_tokens` prompt tokens may take: the larger of
    /// `least` and ten times the expected cost. `unknown` before the first measurement.
    pub(super) fn allowance(&self, prompt_tokens: u64, least: Duration, unknown: Duration) -> Duration {
        let Some(step) = self.step else { return unknown.max(least) };
        let token = self.prefill.or(self.token).unwrap_or(step);
        let expected = step + token * prompt_tokens as f64;
        let expected = Duration::try_from_secs_f64(expected).unwrap_or(Duration::MAX);
        expected.saturating_mul(ALLOWED).max(least)
    }
}

fn raise(cost: &mut Option<f64>, measured: f64) {
    let before = cost.unwrap_or(0.0);
    *cost = Some(if measured > before { measured } else { before * DECAY + measured * (1.0 - DECAY) });
}
