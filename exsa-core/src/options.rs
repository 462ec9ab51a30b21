//! Options of an engine.

use crate::adapter::AdapterOptions;
use crate::backend::SessionOptions;
use crate::chat::ChatTemplateSource;
use crate::prompt_cache::PromptCacheOptions;
use crate::schedule::prefix::PrefixCacheOptions;
use crate::schedule::queue::FairOptions;
use crate::schedule::scheduler::Mode;
use crate::speculate::SpeculationMode;
use std::time::Duration;

/// Settings of an engine. Apart from the prompt store, clones share no state: engines started from clones are
/// independent.
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
    /// Session options: KV, context, threads. The engine replaces
    /// the [interrupt](crate::backend::Interrupt) with its own.
    pub session: SessionOptions,
    /// Maximum requests waiting for a sequence; 1,024 by default. Further requests are refused with
    /// [`SubmitError::QueueFull`](crate::SubmitError::QueueFull). Each answer of a request counts
    /// ([`Request::n`](crate::Request::n)), but an empty queue accepts a request with any number of answers.
    pub queue_max: usize,
    /// Maximum waiting requests per user; `None`, the default, sets no limit besides `queue_max`.
    pub user_queue_max: Option<usize>,
    /// Maximum prefill tokens per step while any stream is decoding
    /// (latency-aware modes only); 256 by default. Smaller values keep running
    /// streams smoother during a long prefill, larger values compute it faster.
    pub prefill_chunk_max: usize,
    /// Scheduling mode; [`Mode::Balanced`] by default.
    /// [`Engine::set_mode`](crate::Engine::set_mode) changes it later.
    pub mode: Mode,
    /// Target inter-token latency (p95) for [`Mode::Balanced`]; 200 ms by default. If
    /// decoding alone takes more than half of it, twice the decode time is used instead.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub inter_token_target: Duration,
    /// Prefix cache: reuse of the KV of prompts and answers.
    pub prefix_cache: PrefixCacheOptions,
    /// Prompt store behind the prefix cache; `None`, the default, keeps prompts in the KV cache only. Clones
    /// of the options share the store.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub prompt_cache: Option<PromptCacheOptions>,
    /// Settings of the fair queue of [`Engine::start`](crate::Engine::start).
    pub fair: FairOptions,
    /// Bytes of host memory for the KV of preempted requests;
    /// 256 MiB by default. With 0 it is recomputed instead.
    pub saved_kv_bytes_max: u64,
    /// Preemptions before a request is protected; 3 by default. KV for the rest of its answer,
    /// up to 2,048 tokens, is then reserved, and only other protected requests can preempt it.
    pub preemptions_max: u32,
    /// Speculative decoding with drafts from the request's own tokens (suffix index and prompt lookup); by
    /// default enabled where it cannot change answers.
    pub speculation: SpeculationMode,
    /// Unread events in a stream at which its sequence is paused; 1,024 by default.
    pub stream_events_max: usize,
    /// Limits for LoRA adapters loaded while the engine runs.
    pub adapters: AdapterOptions,
    /// Chat template for requests that select none; `None`, the default, is the model's own.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub chat_template: Option<ChatTemplateSource>,
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
            prompt_cache: None,
            fair: FairOptions::default(),
            saved_kv_bytes_max: 256 << 20,
            preemptions_max: 3,
            speculation: SpeculationMode::default(),
            stream_events_max: 1024,
            adapters: AdapterOptions::default(),
            chat_template: None,
        }
    }
}

impl EngineOptions {
    /// Sets the chat template for requests that select none.
    #[must_use]
    pub fn chat_template(mut self, template: impl Into<Option<ChatTemplateSource>>) -> Self {
        self.chat_template = template.into();
        self
    }

    /// Sets the limits for LoRA adapters.
    #[must_use]
    pub fn adapters(mut self, adapters: AdapterOptions) -> Self {
        self.adapters = adapters;
        self
    }

    /// Sets the options of the session.
    #[must_use]
    pub fn session(mut self, session: SessionOptions) -> Self {
        self.session = session;
        self
    }

    /// Sets the maximum requests waiting for a sequence.
    #[must_use]
    pub fn queue_max(mut self, queue_max: usize) -> Self {
        self.queue_max = queue_max;
        self
    }

    /// Sets the maximum waiting requests per user.
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

    /// Sets the target inter-token latency of [`Mode::Balanced`].
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

    /// Sets the prompt store and its use.
    #[must_use]
    pub fn prompt_cache(mut self, prompt_cache: impl Into<Option<PromptCacheOptions>>) -> Self {
        self.prompt_cache = prompt_cache.into();
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

    /// Sets the mode of speculative decoding.
    #[must_use]
    pub fn speculation(mut self, speculation: SpeculationMode) -> Self {
        self.speculation = speculation;
        self
    }

    /// Sets the unread events at which a sequence is paused.
    #[must_use]
    pub fn stream_events_max(mut self, stream_events_max: usize) -> Self {
        self.stream_events_max = stream_events_max;
        self
    }
}
