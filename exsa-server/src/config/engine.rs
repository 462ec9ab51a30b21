//! Section `[engine]`: the model and the engine of a server with one model.

use super::{Problems, units};
use exsa_core::backend::{SessionOptions, ThreadOptions};
use exsa_core::speculate::SpeculationMode;
use exsa_core::{EngineOptions, Mode};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// The section `[engine]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EngineConfig {
    /// A GGUF file; by default the built-in story model.
    pub model: Option<PathBuf>,
    /// Scheduler mode; balanced by default.
    pub mode: Mode,
    /// Compute threads; by default the number of physical cores.
    pub threads: Option<NonZeroUsize>,
    /// Maximum concurrent sequences; 16 by default.
    pub sequences_max: usize,
    /// Maximum tokens of one sequence; by default the model's context length.
    pub context_tokens_max: Option<usize>,
    /// Maximum bytes of the KV cache; 1 GiB by default.
    #[serde(with = "units::size")]
    pub kv_bytes_max: u64,
    /// Maximum bytes of saved KV of preempted requests; 256 MiB by default.
    #[serde(with = "units::size")]
    pub saved_kv_bytes_max: u64,
    /// Maximum tokens of a batch; 512 by default.
    pub batch_tokens_max: usize,
    /// Maximum prefill tokens per step while any stream is decoding; 256 by default.
    pub prefill_chunk_max: usize,
    /// Maximum waiting requests; 1,024 by default.
    pub queue_max: usize,
    /// Maximum waiting requests per user; by default only limited by `queue_max`.
    pub user_queue_max: Option<usize>,
    /// Target of the 95th percentile of the inter-token latency in balanced mode; 200 ms by default.
    #[serde(with = "units::duration")]
    pub inter_token_target: Duration,
    /// Time without service after which a priority class gets a turn ahead of more urgent ones; 5 s by
    /// default.
    #[serde(with = "units::duration")]
    pub ageing: Duration,
    /// Whether the KV of common prefixes is shared and cached; `true` by default.
    pub prefix_cache: bool,
    /// Whether drafts are verified; by default if they change no answer.
    pub speculation: SpeculationMode,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let options = EngineOptions::default();
        Self {
            model: None,
            mode: options.mode,
            threads: None,
            sequences_max: options.session.sequences_max,
            context_tokens_max: None,
            kv_bytes_max: options.session.kv_bytes_max,
            saved_kv_bytes_max: options.saved_kv_bytes_max,
            batch_tokens_max: options.session.batch_tokens_max,
            prefill_chunk_max: options.prefill_chunk_max,
            queue_max: options.queue_max,
            user_queue_max: options.user_queue_max,
            inter_token_target: options.inter_token_target,
            ageing: options.fair.ageing,
            prefix_cache: options.prefix_cache.enabled,
            speculation: options.speculation,
        }
    }
}

impl EngineConfig {
    /// The engine's options.
    pub fn options(&self) -> EngineOptions {
        let mut session = SessionOptions::new().threads(ThreadOptions::new(self.threads));
        session.sequences_max = self.sequences_max;
        session.context_tokens_max = self.context_tokens_max;
        session.kv_bytes_max = self.kv_bytes_max;
        session.batch_tokens_max = self.batch_tokens_max;
        let mut options = EngineOptions::default().session(session).mode(self.mode).queue_max(self.queue_max);
        options.user_queue_max = self.user_queue_max;
        options.prefill_chunk_max = self.prefill_chunk_max;
        options.inter_token_target = self.inter_token_target;
        options.saved_kv_bytes_max = self.saved_kv_bytes_max;
        options.fair.ageing = self.ageing;
        options.prefix_cache.enabled = self.prefix_cache;
        options.speculation = self.speculation;
        options
    }

    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        if let Some(path) = &self.model {
            super::check_file("engine.model", path, problems);
        }
        for (name, value) in [
            ("sequences_max", self.sequences_max),
            ("batch_tokens_max", self.batch_tokens_max),
            ("prefill_chunk_max", self.prefill_chunk_max),
            ("context_tokens_max", self.context_tokens_max.unwrap_or(1)),
        ] {
            if value == 0 {
                problems.add(format!("engine.{name}"), "0 is not allowed; allowed is 1 or more");
            }
        }
        for (name, time) in [("inter_token_target", self.inter_token_target), ("ageing", self.ageing)] {
            if time.is_zero() || time > super::DURATION_MAX {
                problems.add(format!("engine.{name}"), "allowed is more than \"0s\" and at most \"365days\"");
            }
        }
    }
}
