//! Measured costs of steps and transfers.

use super::plan::{Work, WorkKind};
use std::time::Duration;

/// Cost of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCost {
    /// Tokens computed.
    pub tokens: usize,
    /// Decodes: streams that waited for this step, with one decode token each.
    pub decodes: usize,
    /// Drafts verified with them.
    pub drafts: usize,
    /// Duration of the step.
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

    /// Prefill tokens of the step.
    pub(super) fn prefill(&self) -> usize {
        self.tokens.saturating_sub(self.decodes + self.drafts)
    }
}

/// Transfer rate in bytes per second assumed before the first measurement.
const TRANSFER_ASSUMED: f64 = 1e9;
/// Bytes per second that the prompt store is assumed to read before the first measurement.
const READ_ASSUMED: f64 = 5e8;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.1;

/// Exponential moving averages of the measurements.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Seconds per prefill token.
    prefill: Option<f64>,
    /// Bytes per second.
    transfer: Option<f64>,
    /// Bytes per second that the prompt store reads.
    read: Option<f64>,
    /// Seconds between admissions while the queue is not empty.
    admission: Option<f64>,
    admitted: Option<Duration>,
}

impl Costs {
    pub(super) fn step(&mut self, step: &StepCost) {
        // Small steps are bound by reading weights and say little about prefill cost.
        if step.prefill() >= step.decodes + step.drafts + 8 {
            average(&mut self.prefill, step.elapsed.as_secs_f64() / step.tokens as f64);
        }
    }

    pub(super) fn transfer(&mut self, bytes: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        average(&mut self.transfer, bytes as f64 / seconds);
    }

    /// Records a read of the prompt store.
    pub(super) fn read(&mut self, bytes: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        average(&mut self.read, bytes as f64 / seconds);
    }

    /// Time to compute `tokens` tokens of a prompt; `None` before the first measurement.
    pub(super) fn prefill_time(&self, tokens: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.prefill? * tokens as f64).ok()
    }

    /// Whether reading `bytes` from the prompt store and restoring the last `own` of these bytes costs less
    /// than computing `tokens` tokens.
    pub(super) fn reading_pays(&self, bytes: u64, own: u64, tokens: usize) -> bool {
        let Some(prefill) = self.prefill else { return true };
        let read = bytes as f64 / self.read.unwrap_or(READ_ASSUMED);
        read + own as f64 / self.transfer.unwrap_or(TRANSFER_ASSUMED) < prefill * tokens as f64
    }

    /// Tokens that can be saved in `time`.
    pub(super) fn tokens_saved_in(&self, time: Duration, bytes_per_token: u64) -> usize {
        let bytes = self.transfer.unwrap_or(TRANSFER_ASSUMED) * time.as_secs_f64();
        (bytes / bytes_per_token.max(1) as f64) as usize
    }

    /// Records `n` admissions and whether requests still wait.
    pub(super) fn admissions(&mut self, n: usize, now: Duration, waiting: bool) {
        if let Some(before) = self.admitted {
            average(&mut self.admission, now.saturating_sub(before).as_secs_f64() / n as f64);
        }
        self.admitted = waiting.then_some(now);
    }

    /// Time between admissions while the queue is not empty.
    pub(super) fn admission_interval(&self) -> Option<Duration> {
        self.admission.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// Whether saving and restoring `bytes` costs less than recomputing `tokens`.
    pub(super) fn saving_pays(&self, bytes: u64, tokens: usize) -> bool {
        let Some(prefill) = self.prefill else { return true };
        2.0 * bytes as f64 / self.transfer.unwrap_or(TRANSFER_ASSUMED) < prefill * tokens as f64
    }
}

fn average(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + (value - mean) * NEWEST));
}
