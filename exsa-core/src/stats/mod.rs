//! Counters of an engine.

mod drafts;
mod histogram;
#[cfg(feature = "metrics")]
mod metrics;
mod recorder;

pub use drafts::{DRAFT_POSITIONS, DraftCounts, DraftStats};
pub use histogram::Histogram;
pub(crate) use recorder::Recorder;

use crate::priority::Priority;
use std::time::Duration;

/// A snapshot of an engine's statistics. Counters only increase; gauges show the state after the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
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
    /// Embedding and rerank requests that have not ended.
    pub embeds_open: usize,
    /// Passes over texts to embed or score.
    pub embed_passes: u64,
    /// Texts embedded or scored.
    pub texts_embedded: u64,
    /// Tokens of these texts.
    pub tokens_embedded: u64,
    /// Prompts restored from and saved to the prompt store.
    pub prompt_cache: PromptCacheStats,
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct SchedulerStats {
    /// Requests that hold a sequence.
    pub running: usize,
    /// Running requests that are paused because their consumer does not read.
    pub paused: usize,
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
    /// Tokens per KV block; after a merge, the maximum over the engines.
    pub kv_block_tokens: usize,
    /// Number of preemptions.
    pub preemptions: u64,
    /// Preemptions whose KV was saved to host memory.
    pub preemptions_saved: u64,
    /// Prompt tokens of admitted requests.
    pub prompt_tokens: u64,
    /// Prompt tokens whose KV came from the prefix cache.
    pub cached_tokens: u64,
    /// Speculative drafts verified.
    pub drafted_tokens: u64,
    /// Drafts that became part of an answer.
    pub accepted_drafts: u64,
    /// Verified and accepted drafts, by source and position.
    pub drafts: DraftStats,
    /// Generated tokens that were rewound.
    pub rewound_tokens: u64,
    /// Shifts of a full context.
    pub context_shifts: u64,
    /// Requests that waited for the prompt store.
    pub prompt_reads_awaited: u64,
    /// Requests that computed their prompt because the prompt store was too slow.
    pub prompt_reads_late: u64,
}

impl EngineStats {
    /// Adds the counters, gauges and histograms of another engine.
    pub fn merge(&mut self, other: &Self) {
        // Destructured without `..`, so that a new field cannot be forgotten.
        let Self {
            scheduler,
            steps,
            tokens_computed,
            tokens_generated,
            embeds_open,
            embed_passes,
            texts_embedded,
            tokens_embedded,
            prompt_cache,
            submitted,
            finished,
            failed,
            step_times,
            queue_time,
            time_to_first_token,
            inter_token,
        } = other;
        self.scheduler.merge(scheduler);
        self.steps += steps;
        self.tokens_computed += tokens_computed;
        self.tokens_generated += tokens_generated;
        self.embeds_open += embeds_open;
        self.embed_passes += embed_passes;
        self.texts_embedded += texts_embedded;
        self.tokens_embedded += tokens_embedded;
        self.prompt_cache.merge(prompt_cache);
        self.submitted += submitted;
        self.finished += finished;
        self.failed += failed;
        self.step_times.merge(step_times);
        self.queue_time.merge(queue_time);
        self.time_to_first_token.merge(time_to_first_token);
        self.inter_token.merge(inter_token);
    }

    /// The counters, with all gauges set to zero: the statistics of an engine that has ended.
    #[must_use]
    pub fn without_gauges(mut self) -> Self {
        let SchedulerStats { preemptions, preemptions_saved, prompt_tokens, cached_tokens, .. } =
            self.scheduler;
        let SchedulerStats { drafted_tokens, accepted_drafts, drafts, .. } = self.scheduler;
        let SchedulerStats { rewound_tokens, context_shifts, .. } = self.scheduler;
        let SchedulerStats { prompt_reads_awaited, prompt_reads_late, .. } = self.scheduler;
        self.embeds_open = 0;
        self.scheduler = SchedulerStats {
            preemptions,
            preemptions_saved,
            prompt_tokens,
            cached_tokens,
            drafted_tokens,
            accepted_drafts,
            drafts,
            rewound_tokens,
            context_shifts,
            prompt_reads_awaited,
            prompt_reads_late,
            ..SchedulerStats::default()
        };
        self
    }

    /// Hit rate of the prefix cache: share of prompt tokens whose KV was cached. `None` before the first
    /// prompt.
    pub fn hit_rate(&self) -> Option<f64> {
        let SchedulerStats { prompt_tokens, cached_tokens, .. } = self.scheduler;
        (prompt_tokens > 0).then(|| cached_tokens as f64 / prompt_tokens as f64)
    }
}

impl SchedulerStats {
    fn merge(&mut self, other: &Self) {
        let Self {
            running,
            paused,
            waiting,
            waiting_by_class,
            kv_tokens_used,
            kv_tokens_cached,
            kv_tokens_shared,
            kv_tokens_max,
            kv_block_tokens,
            preemptions,
            preemptions_saved,
            prompt_tokens,
            cached_tokens,
            drafted_tokens,
            accepted_drafts,
            drafts,
            rewound_tokens,
            context_shifts,
            prompt_reads_awaited,
            prompt_reads_late,
        } = other;
        self.running += running;
        self.paused += paused;
        self.waiting += waiting;
        self.waiting_by_class.iter_mut().zip(waiting_by_class).for_each(|(count, more)| *count += more);
        self.kv_tokens_used += kv_tokens_used;
        self.kv_tokens_cached += kv_tokens_cached;
        self.kv_tokens_shared += kv_tokens_shared;
        self.kv_tokens_max += kv_tokens_max;
        self.kv_block_tokens = self.kv_block_tokens.max(*kv_block_tokens);
        self.preemptions += preemptions;
        self.preemptions_saved += preemptions_saved;
        self.prompt_tokens += prompt_tokens;
        self.cached_tokens += cached_tokens;
        self.drafted_tokens += drafted_tokens;
        self.accepted_drafts += accepted_drafts;
        self.drafts.merge(drafts);
        self.rewound_tokens += rewound_tokens;
        self.context_shifts += context_shifts;
        self.prompt_reads_awaited += prompt_reads_awaited;
        self.prompt_reads_late += prompt_reads_late;
    }
}

/// Statistics of the prompt store: prompts restored and saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct PromptCacheStats {
    /// Prompts restored.
    pub restored: u64,
    /// Tokens of the restored prompts.
    pub restored_tokens: u64,
    /// Reads without a restored prompt: failed, damaged, of another prompt, or without space in the KV cache.
    pub failed: u64,
    /// Reads that ended when no request was waiting for them any more.
    pub unused: u64,
    /// Prompts passed to the store.
    pub saved: u64,
    /// Bytes of the saved prompts.
    pub saved_bytes: u64,
    /// Prompts that were not saved, because the store refused them or the session failed.
    pub unsaved: u64,
    /// Step time spent on saving and restoring.
    pub time: Duration,
}

impl PromptCacheStats {
    fn merge(&mut self, other: &Self) {
        let Self { restored, restored_tokens, failed, unused, saved, saved_bytes, unsaved, time } = other;
        self.restored += restored;
        self.restored_tokens += restored_tokens;
        self.failed += failed;
        self.unused += unused;
        self.saved += saved;
        self.saved_bytes += saved_bytes;
        self.unsaved += unsaved;
        self.time += *time;
    }
}

/// Time spent in each part of all steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
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

impl StepTimes {
    fn merge(&mut self, other: &Self) {
        let Self { plan, forward, sample, emit, embed } = other;
        self.plan += *plan;
        self.forward += *forward;
        self.sample += *sample;
        self.emit += *emit;
        self.embed += *embed;
    }
}
