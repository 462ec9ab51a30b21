//! Options for an engine's use of a prompt store.

use super::PromptStore;
use std::sync::Arc;
use std::time::Duration;

/// A prompt store, and how an engine uses it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PromptCacheOptions {
    /// The store. Several engines can share it.
    pub store: Arc<dyn PromptStore>,
    /// Time without use after which a cached prefix is saved; 20 s by default. Prefixes that are evicted
    /// earlier, or still cached at shutdown, are saved then.
    pub cold_after: Duration,
    /// Minimum tokens that reading or saving a prefix must gain; 64 by default.
    pub tokens_min: usize,
    /// Minimum distance in tokens between checkpoints within a prompt, for sessions that cannot truncate; at
    /// least `tokens_min`, 256 by default. The distance is doubled until a prompt has at most four
    /// checkpoints. With `usize::MAX`, only the positions at which a prompt diverges from a stored prompt are
    /// checkpoints.
    pub checkpoint_tokens: usize,
    /// Maximum time that a request waits for a read; 30 s by default. Once the prefill speed has been
    /// measured, it also waits no longer than prefilling the tokens would take.
    pub wait_max: Duration,
    /// Maximum time that a shutdown waits for room in the store's queue; 5 s by default.
    pub shutdown_wait: Duration,
}

impl PromptCacheOptions {
    /// The defaults for `store`.
    pub fn new(store: Arc<dyn PromptStore>) -> Self {
        Self {
            store,
            cold_after: Duration::from_secs(20),
            tokens_min: 64,
            checkpoint_tokens: 256,
            wait_max: Duration::from_secs(30),
            shutdown_wait: Duration::from_secs(5),
        }
    }

    /// Sets the time without use after which a prefix is saved.
    #[must_use]
    pub fn cold_after(mut self, cold_after: Duration) -> Self {
        self.cold_after = cold_after;
        self
    }

    /// Sets the minimum tokens that reading or saving a prefix must gain, at least 1.
    #[must_use]
    pub fn tokens_min(mut self, tokens_min: usize) -> Self {
        self.tokens_min = tokens_min.max(1);
        self
    }

    /// Sets the minimum distance of checkpoints within prompts.
    #[must_use]
    pub fn checkpoint_tokens(mut self, checkpoint_tokens: usize) -> Self {
        self.checkpoint_tokens = checkpoint_tokens;
        self
    }

    /// Sets the maximum time that a request waits for a read.
    #[must_use]
    pub fn wait_max(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }

    /// Sets the maximum time that a shutdown waits for the store.
    #[must_use]
    pub fn shutdown_wait(mut self, shutdown_wait: Duration) -> Self {
        self.shutdown_wait = shutdown_wait;
        self
    }
}
