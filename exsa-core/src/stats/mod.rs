//! Counters of an engine.

mod histogram;
#[cfg(feature = "metrics")]
mod metrics;
mod recorder;

pub use histogram::Histogram;
pub(crate) use recorder::Recorder;

use crate::priority::Priority;
use std::time::Duration;

/// A snapshot of an engine's statistics. Counters only grow; gauges are as of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Sequences, KV and preemptions.
    pub scheduler: SchedulerStats,
    /// Forward passes.
    pub steps: u64,
    /// Tokens computed, including tokens recomputed after preemption.
    pub tokens_computed: u64,
    /// Tokens generated.
    pub tokens_generated: u64,
    /// Passes over texts to embed or score.
    pub embed_passes: u64,
    /// Texts embedded or scored.
    pub texts_embedded: u64,
    /// Tokens of these texts.
    pub tokens_embedded: u64,
    /// Requests accepted.
    pub submitted: u64,
    /// Requests ended, including failed requests.
    pub finished: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Time spent in each part of all steps.
    pub step_times: StepTimes,
    /// Time from submission to first admission.
    pub queue_time: Histogram,
    /// Time from submission to the first token.
    pub time_to_first_token: Histogram,
    /// Time between tokens of a stream.
    pub inter_token: Histogram,
}

/// The scheduler's part of [`EngineStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchedulerStats {
    /// Requests that hold a sequence.
    pub running: usize,
    /// Requests that wait for a sequence.
    pub waiting: usize,
    /// Waiting requests in the queue by class: [`Priority::index`].
    pub waiting_by_class: [usize; Priority::COUNT],
    /// Tokens of KV in blocks held by requests.
    pub kv_tokens_used: usize,
    /// Tokens of KV in blocks held only by the prefix cache.
    pub kv_tokens_cached: usize,
    /// Tokens of KV in blocks held by more than one sequence.
    pub kv_tokens_shared: usize,
    /// Tokens of KV in all blocks.
    pub kv_tokens_max: usize,
    /// Number of preemptions.
    pub preemptions: u64,
    /// Preemptions whose KV was saved to host memory.
    pub preemptions_saved: u64,
    /// Prompt tokens of admitted requests.
    pub prompt_tokens: u64,
    /// Prompt tokens whose KV was cached.
    pub cached_tokens: u64,
    /// Drafts verified.
    pub drafted_tokens: u64,
    /// Drafts that became part of an answer.
    pub accepted_drafts: u64,
    /// Generated tokens that were taken back.
    pub rewound_tokens: u64,
    /// Shifts of a full context.
    pub context_shifts: u64,
}

impl EngineStats {
    /// Share of prompt tokens whose KV was cached; `None` before the first prompt.
    pub fn hit_rate(&self) -> Option<f64> {
        let SchedulerStats { prompt_tokens, cached_tokens, .. } = self.scheduler;
        (prompt_tokens > 0).then(|| cached_tokens as f64 / prompt_tokens as f64)
    }
}

/// Time spent in each part of all steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepTimes {
    /// Planning, and KV operations of the plan.
    pub plan: Duration,
    /// Forward passes.
    pub forward: Duration,
    /// Sampling.
    pub sample: Duration,
    /// Detokenizing and sending events to streams.
    pub emit: Duration,
    /// Passes over texts to embed or score.
    pub embed: Duration,
}
