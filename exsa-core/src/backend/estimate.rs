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
    /// Part of the weights in pages of mapped files, shared by all processes that map them.
    pub shared: u64,
}

impl MemoryEstimate {
    /// Creates an estimate.
    #[must_use]
    pub fn new(weights: u64, kv: u64, scratch: u64) -> Self {
        Self { weights, kv, scratch, shared: 0 }
    }

    /// Sets the part of the weights in pages of mapped files.
    #[must_use]
    pub fn shared(mut self, bytes: u64) -> Self {
        self.shared = bytes.min(self.weights);
        self
    }

    /// Estimate for `processes` processes, each with the model and one session.
    #[must_use]
    pub fn of_processes(self, processes: u64) -> Self {
        let own = self.weights.saturating_sub(self.shared);
        Self {
            weights: self.shared.saturating_add(own.saturating_mul(processes)),
            kv: self.kv.saturating_mul(processes),
            scratch: self.scratch.saturating_mul(processes),
            shared: self.shared,
        }
    }

    /// Total bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pages_count_once() {
        let one = MemoryEstimate::new(100, 10, 1).shared(70);
        assert_eq!(one.of_processes(1), one);
        assert_eq!(one.of_processes(3), MemoryEstimate::new(160, 30, 3).shared(70));
        assert_eq!(MemoryEstimate::new(5, 0, 0).shared(9).of_processes(4).weights, 5);
        assert_eq!(MemoryEstimate::new(u64::MAX, 1, 1).of_processes(2).total(), u64::MAX);
    }
}
