//! Memory estimates of a model and a session before loading.

/// Bytes that a backend allocates for a model and one session of it:
/// [`InferenceBackend::estimate`](super::InferenceBackend::estimate).
///
/// The figures count what the backend allocates itself. Pages of a mapped file that the backend
/// reads in place count as weights; tokenizer, allocator overhead and thread stacks do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Weights in their compute layout.
    pub weights: u64,
    /// KV cache of the session.
    pub kv: u64,
    /// Activations, logits and workspaces of the session at its largest batch.
    pub scratch: u64,
}

impl MemoryEstimate {
    /// Creates an estimate.
    #[must_use]
    pub fn new(weights: u64, kv: u64, scratch: u64) -> Self {
        Self { weights, kv, scratch }
    }

    /// All bytes together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.scratch)
    }

    /// Bytes of a further session of the same model.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.kv.saturating_add(self.scratch)
    }
}
