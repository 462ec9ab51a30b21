//! What steps and transfers were seen to cost.

use super::plan::{Work, WorkKind};
use std::time::Duration;

/// What one step cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCost {
    /// Tokens computed.
    pub tokens: usize,
    /// Streams that waited for this step: one token of each is a decode.
    pub decodes: usize,
    /// Drafts verified beside them.
    pub drafts: usize,
    /// How long the step took.
    pub elapsed: Duration,
}

impl StepCost {
    /// The cost of a step that did `work` in `elapsed`.
    pub fn of(work: &[Work], elapsed: Duration) -> Self {
        let mut cost = Self { tokens: 0, decodes: 0, drafts: 0, elapsed };
        for work in work {
            cost.tokens += work.len;
            cost.drafts += work.drafts;
            cost.decodes += usize::from(work.kind == WorkKind::Decode);
        }
        cost
    }

    /// Tokens that were prefill.
    pub(super) fn prefill(&self) -> usize {
        self.tokens.saturating_sub(self.decodes + self.drafts)
    }
}

/// Bytes in a second that saving and restoring are taken to move before they were measured.
const TRANSFER_ASSUMED: f64 = 1e9;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.1;

/// Running means of what was measured.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Seconds for a token of a prompt.
    prefill: Option<f64>,
    /// Bytes in a second.
    transfer: Option<f64>,
    /// Seconds from one admission to the next while others wait.
    admission: Option<f64>,
    admitted: Option<Duration>,
}

impl Costs {
    pub(super) fn step(&mut self, step: &StepCost) {
        // Steps of few tokens are bound by reading weights and say little about prefill.
        if step.prefill() >= step.decodes + step.drafts + 8 {
            average(&mut self.prefill, step.elapsed.as_secs_f64() / step.tokens as f64);
        }
    }

    pub(super) fn transfer(&mut self, bytes: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        average(&mut self.transfer, bytes as f64 / seconds);
    }

    /// Takes note that requests were admitted, and whether others still wait.
    pub(super) fn admissions(&mut self, n: usize, now: Duration, waiting: bool) {
        if let Some(before) = self.admitted {
            average(&mut self.admission, now.saturating_sub(before).as_secs_f64() / n as f64);
        }
        self.admitted = waiting.then_some(now);
    }

    /// Time from one admission to the next while the queue is not empty.
    pub(super) fn admission_interval(&self) -> Option<Duration> {
        self.admission.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// Whether saving `bytes` and restoring them costs less than computing `tokens` again.
    pub(super) fn saving_pays(&self, bytes: u64, tokens: usize) -> bool {
        let Some(prefill) = self.prefill else { return true };
        2.0 * bytes as f64 / self.transfer.unwrap_or(TRANSFER_ASSUMED) < prefill * tokens as f64
    }
}

fn average(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + (value - mean) * NEWEST));
}
