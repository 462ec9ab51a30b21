//! Options of an engine.

use crate::backend::SessionOptions;
use crate::schedule::prefix::PrefixCacheOptions;
use crate::schedule::queue::FairOptions;
use crate::schedule::scheduler::Mode;
use std::time::Duration;

/// Settings of an engine. A clone shares nothing with its original: engines started from clones are independent.
///
/// ```
/// use exsa_core::{EngineOptions, Mode};
///
/// let options = EngineOptions::default().mode(Mode::Latency).queue_max(64);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The session: KV, context, threads. The engine puts an [interrupt](crate::backend::Interrupt) of its own in place of
    /// the one in here.
    pub session: SessionOptions,
    /// Requests that may wait for a sequence; 1,024 by default. More are refused with
    /// [`SubmitError::QueueFull`](crate::SubmitError::QueueFull).
    pub queue_max: usize,
    /// Of one user; `None`, the default, sets no limit but `queue_max`.
    pub user_queue_max: Option<usize>,
    /// Most prompt tokens of a step in which streams decode, where the mode keeps latency in view; 256 by default. Smaller
    /// values let running streams go on more smoothly while a long prompt comes in, larger ones compute it faster.
    pub prefill_chunk_max: usize,
    /// What the engine is tuned for; [`Mode::Balanced`] by default.
    /// [`Engine::set_mode`](crate::Engine::set_mode) changes it later.
    pub mode: Mode,
    /// The time between two tokens of a stream that [`Mode::Balanced`] keeps to 95 % of the time; 200 ms by default. Where decoding
    /// alone takes more than half of it, twice that instead.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub inter_token_target: Duration,
    /// What is kept of prompts and answers, so as not to be computed again.
    pub prefix_cache: PrefixCacheOptions,
    /// How [`Engine::start`](crate::Engine::start)'s queue shares the engine out.
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

impl EngineOptions {
    /// Sets the options of the session.
    #[must_use]
    pub fn session(mut self, session: SessionOptions) -> Self {
        self.session = session;
        self
    }

    /// Sets how many requests may wait for a sequence.
    #[must_use]
    pub fn queue_max(mut self, queue_max: usize) -> Self {
        self.queue_max = queue_max;
        self
    }

    /// Sets how many requests of one user may wait.
    #[must_use]
    pub fn user_queue_max(mut self, user_queue_max: impl Into<Option<usize>>) -> Self {
        self.user_queue_max = user_queue_max.into();
        self
    }

    /// Sets the maximum of prefill tokens per step while streams decode.
    #[must_use]
    pub fn prefill_chunk_max(mut self, prefill_chunk_max: usize) -> Self {
        self.prefill_chunk_max = prefill_chunk_max;
        self
    }

    /// Sets the mode.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the time between two tokens that [`Mode::Balanced`] aims at.
    #[must_use]
    pub fn inter_token_target(mut self, inter_token_target: Duration) -> Self {
        self.inter_token_target = inter_token_target;
        self
    }

    /// Sets the options of the prefix cache.
    #[must_use]
    pub fn prefix_cache(mut self, prefix_cache: PrefixCacheOptions) -> Self {
        self.prefix_cache = prefix_cache;
        self
    }

    /// Sets the options of [`Engine::start`](crate::Engine::start)'s queue.
    #[must_use]
    pub fn fair(mut self, fair: FairOptions) -> Self {
        self.fair = fair;
        self
    }

    /// Sets the bytes of host memory for the KV of preempted requests.
    #[must_use]
    pub fn saved_kv_bytes_max(mut self, saved_kv_bytes_max: u64) -> Self {
        self.saved_kv_bytes_max = saved_kv_bytes_max;
        self
    }

    /// Sets the preemptions before a request is protected.
    #[must_use]
    pub fn preemptions_max(mut self, preemptions_max: u32) -> Self {
        self.preemptions_max = preemptions_max;
        self
    }

    /// Sets the unread events at which a sequence is paused.
    #[must_use]
    pub fn stream_events_max(mut self, stream_events_max: usize) -> Self {
        self.stream_events_max = stream_events_max;
        self
    }
}
