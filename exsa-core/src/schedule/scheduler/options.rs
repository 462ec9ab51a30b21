//! Settings of the scheduler.

use super::Mode;
use crate::schedule::prefix::PrefixCacheOptions;
use std::time::Duration;

/// How a scheduler works.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// Tokens in a batch.
    pub batch_tokens_max: usize,
    /// Most prefill tokens of a step in which streams decode, in the modes that keep latency in view.
    pub prefill_chunk_max: usize,
    /// Sequences that run at one time.
    pub running_max: usize,
    /// What to tune for.
    pub mode: Mode,
    /// The time between two tokens of a stream that [`Mode::Balanced`] keeps to 95 % of the time.
    pub inter_token_target: Duration,
    /// What the prefix cache keeps.
    pub prefix: PrefixCacheOptions,
    /// Bytes of KV that a token takes.
    pub kv_bytes_per_token: u64,
    /// Bytes of host memory for the KV of preempted requests; 0 computes it again instead.
    pub saved_bytes_max: u64,
    /// Times that a request gives way to others. After that, KV for the rest of its answer, up to 2,048
    /// tokens, is held ready for it, and it gives way again only to others of which this is true.
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
