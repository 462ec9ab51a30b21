//! Scheduling modes.

use super::budget::{Adaptive, BatchPolicy, Fixed};
use std::time::Duration;

/// Goal that the scheduler optimizes for. Can be changed while the engine runs.
///
/// ```
/// use exsa_core::{EngineOptions, Mode};
///
/// let options = EngineOptions::default().mode(Mode::Throughput);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Mode {
    /// Smooth token streams: small prefill chunks alongside running streams, half of the sequences, strict
    /// fairness, and a large KV reserve for answers, to avoid preemption.
    Latency,
    /// Maximum tokens per second: full batches, cached prefixes preferred over fairness, a minimal KV
    /// reserve.
    Throughput,
    /// The default: as much prefill alongside running streams as possible while the 95th percentile of the
    /// inter-token latency stays within
    /// [`SchedulerOptions::inter_token_target`](super::SchedulerOptions::inter_token_target).
    #[default]
    Balanced,
}

/// Parameters of a [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// Maximum running sequences.
    pub running_max: usize,
    /// Service difference between users within which the longer cached prefix goes first, in prompt tokens.
    pub quantum: f64,
    /// Answer tokens per request for which KV is reserved.
    pub reserve_tokens: usize,
}

/// Prefill tokens alongside running streams in [`Mode::Latency`].
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

    /// The mode's prefill budget, at most `chunk_max` tokens alongside running streams in latency-aware
    /// modes.
    pub(super) fn policy(self, chunk_max: usize, target: Duration) -> Box<dyn BatchPolicy> {
        match self {
            Self::Latency => Box::new(Fixed(chunk_max.min(LATENCY_CHUNK))),
            Self::Throughput => Box::new(Fixed(usize::MAX)),
            Self::Balanced => Box::new(Adaptive::new(target, chunk_max)),
        }
    }
}
