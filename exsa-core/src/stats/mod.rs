//! Counters of an engine.

mod histogram;
#[cfg(feature = "metrics")]
mod metrics;
mod recorder;

pub use histogram::Histogram;
pub(crate) use recorder::Recorder;

use crate::priority::Priority;
use std::time::Duration;

/// A snapshot of an engine's counters. Counters only grow; the rest is as of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Sequences, KV and preemptions.
    pub scheduler: SchedulerStats,
    /// Forward passes.
    pub steps: u64,
    /// Tokens computed: prompts, and again those that preempted sequences had computed before.
    pub tokens_computed: u64,
    /// Tokens generated.
    pub tokens_generated: u64,
    /// Passes over texts to embed or to score.
    pub embed_passes: u64,
    /// Texts embedded or scored.
    pub texts_embedded: u64,
    /// Tokens of these texts.
    pub tokens_embedded: u64,
    /// Requests accepted.
    pub submitted: u64,
    /// Requests ended, failed ones included.
    pub finished: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Time spent in the parts of all steps.
    pub step_times: StepTimes,
    /// From submission until a request was first given a sequence.
    pub queue_time: Histogram,
    /// From submission until the first token.
    pub time_to_first_token: Histogram,
    /// From one token of a stream to the next.
    pub inter_token: Histogram,
}

/// The scheduler's part of [`EngineStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchedulerStats {
    /// Requests that hold a sequence.
    pub running: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Of them, those in the queue by class: [`Priority::index`].
    pub waiting_by_class: [usize; Priority::COUNT],
    /// Tokens of KV in blocks that requests hold.
    pub kv_tokens_used: usize,
    /// Tokens of KV in blocks that are kept for their prefix alone.
    pub kv_tokens_cached: usize,
    /// Tokens of KV in blocks that more than one sequence holds.
    pub kv_tokens_shared: usize,
    /// Tokens of KV in all blocks.
    pub kv_tokens_max: usize,
    /// Times a request lost its sequence to another.
    pub preemptions: u64,
    /// Those of them whose KV was saved in host memory.
    pub preemptions_saved: u64,
    /// Tokens of the prompts that were given a sequence.
    pub prompt_tokens: u64,
    /// Those of them whose KV was there already.
    pub cached_tokens: u64,
    /// Drafts that were verified.
    pub drafted_tokens: u64,
    /// Those of them that became part of an answer.
    pub accepted_drafts: u64,
}

impl EngineStats {
    /// Share of prompt tokens whose KV was there already; `None` before the first prompt.
    pub fn hit_rate(&self) -> Option<f64> {
        let SchedulerStats { prompt_tokens, cached_tokens, .. } = self.scheduler;
        (prompt_tokens > 0).then(|| cached_tokens as f64 / prompt_tokens as f64)
    }
}

/// Time spent in the parts of all steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepTimes {
    /// Deciding what to compute, and moving KV for it.
    pub plan: Duration,
    /// Forward passes.
    pub forward: Duration,
    /// Choosing tokens from logits.
    pub sample: Duration,
    /// Turning tokens into text and handing it to streams.
    pub emit: Duration,
    /// Passes over texts to embed or to score.
    pub embed: Duration,
}
