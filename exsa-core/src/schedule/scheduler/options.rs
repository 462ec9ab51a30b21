//! Options of the scheduler.

use super::Mode;
use crate::schedule::prefix::PrefixCacheOptions;
use std::time::Duration;

/// Settings of a [`Scheduler`](super::Scheduler).
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// Maximum tokens per batch.
    pub batch_tokens_max: usize,
    /// Maximum prefill tokens per step while any stream is decoding (latency-aware modes only).
    pub prefill_chunk_max: usize,
    /// Maximum running sequences.
    pub running_max: usize,
    /// Scheduling mode.
    pub mode: Mode,
    /// Target inter-token latency (p95) for [`Mode::Balanced`].
    pub inter_token_target: Duration,
    /// Limits of the prefix cache.
    pub prefix: PrefixCacheOptions,
    /// Bytes of KV per token.
    pub kv_bytes_per_token: u64,
    /// Bytes of host memory for the KV of preempted requests; with 0 it is recomputed instead.
    pub saved_bytes_max: u64,
    /// Preemptions before a request is protected: KV for the rest of its answer, up to
    /// 2,048 tokens, is then reserved, and only other protected requests can preempt it.
    pub preemptions_max: u32,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            batch_tokens_max: 512,
            prefill_chunk_max: 256,
            running_max: 16,
            mode: Mode::default(),
            inter_token_target: Duration::from_millis(200),
            prefix: PrefixCacheOptions::default(),
            kv_bytes_per_token: 0,
            saved_bytes_max: 256 << 20,
            preemptions_max: 3,
        }
    }
}
