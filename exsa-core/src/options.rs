//! Options of an engine.

use crate::backend::SessionOptions;
use crate::schedule::prefix::PrefixCacheOptions;
use crate::schedule::queue::FairOptions;
use crate::schedule::scheduler::Mode;
use std::time::Duration;

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The session: KV, context, threads.
    pub session: SessionOptions,
    /// Requests that may wait for a sequence; 1,024 by default. More are refused with
    /// [`SubmitError::QueueFull`].
    pub queue_max: usize,
    /// Of one user; `None`, the default, sets no limit but `queue_max`.
    pub user_queue_max: Option<usize>,
    /// Most prompt tokens of a step in which streams decode, where the mode keeps latency in view; 256 by default. Smaller
    /// values let running streams go on more smoothly while a long prompt comes in, larger ones compute it faster.
    pub prefill_chunk_max: usize,
    /// What the engine is tuned for; [`Mode::Balanced`] by default. [`Engine::set_mode`] changes it later.
    pub mode: Mode,
    /// The time between two tokens of a stream that [`Mode::Balanced`] keeps to 95 % of the time; 200 ms by default. Where decoding
    /// alone takes more than half of it, twice that instead.
    pub inter_token_target: Duration,
    /// What is kept of prompts and answers, so as not to be computed again.
    pub prefix_cache: PrefixCacheOptions,
    /// How [`Engine::start`]'s queue shares the engine out.
    pub fair: FairOptions,
    /// Host memory for the KV of preempted requests in bytes; 256 MiB by default. 0 computes it again instead.
    pub saved_kv_bytes_max: u64,
    /// Times that a request gives way to others; 3 by default. After that, KV for the rest of its answer, up to 2,048
    /// tokens, is held ready for it, and it gives way again only to others of which this is true.
    pub preemptions_max: u32,
    /// Events that wait unread in a stream before its sequence is paused; 1,024 by default.
    pub stream_events_max: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            session: SessionOptions::default(),
            queue_max: 1024,
            user_queue_max: None,
            prefill_chunk_max: 256,
            mode: Mode::default(),
            inter_token_target: Duration::from_millis(200),
            prefix_cache: PrefixCacheOptions::default(),
            fair: FairOptions::default(),
            saved_kv_bytes_max: 256 << 20,
            preemptions_max: 3,
            stream_events_max: 1024,
        }
    }
}
