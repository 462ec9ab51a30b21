//! LoRA adapters of a model: limits for loading, and properties of loaded adapters.

use super::Fingerprint;
use crate::token::AdapterId;

/// Limits of [`Model::load_adapter`](super::Model::load_adapter), checked before weights are read.
///
/// ```
/// use exsa_core::backend::AdapterLimits;
///
/// let limits = AdapterLimits::new().rank(16).bytes(64 << 20);
/// assert_eq!(limits.rank_max, 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterLimits {
    /// Maximum rank of its matrices; 64 by default.
    pub rank_max: usize,
    /// Maximum bytes in memory; no limit by default.
    pub bytes_max: u64,
}

impl Default for AdapterLimits {
    fn default() -> Self {
        Self { rank_max: super::options::ADAPTER_RANK_MAX, bytes_max: u64::MAX }
    }
}

impl AdapterLimits {
    /// The default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum rank.
    #[must_use]
    pub fn rank(mut self, max: usize) -> Self {
        self.rank_max = max;
        self
    }

    /// Sets the maximum bytes in memory.
    #[must_use]
    pub fn bytes(mut self, max: u64) -> Self {
        self.bytes_max = max;
        self
    }
}

/// Properties of an adapter that a model has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Its id. A model never reuses an id.
    pub id: AdapterId,
    /// Largest rank of its matrices.
    pub rank: usize,
    /// Bytes in memory.
    pub bytes: u64,
    /// Identifies all of its weights and their scales: adapters with equal fingerprints are interchangeable.
    pub fingerprint: Fingerprint,
}

impl AdapterInfo {
    /// The adapter `id`, with all other fields empty.
    #[must_use]
    pub fn new(id: AdapterId) -> Self {
        Self { id, rank: 0, bytes: 0, fingerprint: Fingerprint::default() }
    }

    /// Sets the largest rank.
    #[must_use]
    pub fn rank(mut self, rank: usize) -> Self {
        self.rank = rank;
        self
    }

    /// Sets the bytes in memory.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the fingerprint.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = fingerprint;
        self
    }
}
