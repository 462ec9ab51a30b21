//! What an engine is tuned for.

use super::budget::{Adaptive, BatchPolicy, Fixed};
use std::time::Duration;

/// What an engine is tuned for. It can be changed while the engine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Mode {
    /// Tokens come smoothly: small prefill chunks beside running streams, half of the sequences, strict fairness, and much
    /// KV held ready for answers so that they are not preempted.
    Latency,
    /// Most tokens in a second: full batches, cached prefixes before fairness, KV filled to the brim.
    Throughput,
    /// The default: as much prefill beside running streams as keeps 95 % of the times between two tokens within
    /// [`SchedulerOptions::inter_token_target`](super::SchedulerOptions::inter_token_target).
    #[default]
    Balanced,
}

/// What a [`Mode`] stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// Sequences that run at one time.
    pub running_max: usize,
    /// How far two users' service may be apart while the longer cached prefix goes first, in tokens of input.
    pub quantum: f64,
    /// Tokens of each answer for which KV is held ready.
    pub reserve_tokens: usize,
}

/// Prefill tokens beside running streams in [`Mode::Latency`].
const LATENCY_CHUNK: usize = 64;

impl Mode {
    /// The mode's preset for `sequences` sequences.
    pub fn preset(self, sequences: usize) -> Preset {
        let (running_max, quantum, reserve_tokens) = match self {
            Self::Latency => (sequences.div_ceil(2), 0.0, 256),
            Self::Throughput => (sequences, 16_384.0, 16),
            Self::Balanced => (sequences, 1024.0, 64),
        };
        Preset { running_max: running_max.max(1), quantum, reserve_tokens }
    }

    /// How the mode cuts batches, with at most `chunk_max` tokens of prefill beside running streams where it keeps
    /// latency in view.
    pub(super) fn policy(self, chunk_max: usize, target: Duration) -> Box<dyn BatchPolicy> {
        match self {
            Self::Latency => Box::new(Fixed(chunk_max.min(LATENCY_CHUNK))),
            Self::Throughput => Box::new(Fixed(usize::MAX)),
            Self::Balanced => Box::new(Adaptive::new(target, chunk_max)),
        }
    }
}
