//! Settings of an engine's use of a prompt store.

use super::PromptStore;
use std::sync::Arc;
use std::time::Duration;

/// A prompt store, and how an engine uses it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PromptCacheOptions {
    /// The store. Engines may share it.
    pub store: Arc<dyn PromptStore>,
    /// Time without use after which a cached prefix is written; 20 s by default. Prefixes that are evicted
    /// before, or left at shutdown, are written then.
    pub cold_after: Duration,
    /// Minimum tokens that reading or writing must save; 64 by default.
    pub tokens_min: usize,
    /// Minimum distance of the checkpoints within prompts that sessions that cannot truncate save, and at
    /// least `tokens_min`; 256 tokens by default. It doubles until at most four are in a prompt. `usize::MAX`
    /// leaves those where prompts depart from stored ones.
    pub checkpoint_tokens: usize,
    /// Maximum time for which a request waits for a read; 30 s by default. It also waits no longer than it
    /// would take to compute the tokens, once that is measured.
    pub wait_max: Duration,
    /// Maximum time for which a shutdown waits for room in the store's queue; 5 s by default.
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

    /// Sets the time without use after which a prefix is written.
    #[must_use]
    pub fn cold_after(mut self, cold_after: Duration) -> Self {
        self.cold_after = cold_after;
        self
    }

    /// Sets the minimum tokens that reading or writing must save, at least 1.
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

    /// Sets the maximum time for which a request waits for a read.
    #[must_use]
    pub fn wait_max(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }

    /// Sets the maximum time for which a shutdown waits for the store.
    #[must_use]
    pub fn shutdown_wait(mut self, shutdown_wait: Duration) -> Self {
        self.shutdown_wait = shutdown_wait;
        self
    }
}
