//! Abilities and limits of a session.

use super::Pooling;

/// Abilities and limits of a [`Session`](super::Session), constant over its life.
///
/// ```
/// use exsa_core::backend::Capabilities;
///
/// let capabilities = Capabilities::new(16, 4096).kv_tokens(8192).block_tokens(16).batch_tokens(512).truncate(true);
/// assert_eq!(capabilities.kv_tokens_max, 8192);
/// assert!(!capabilities.fork);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Capabilities {
    /// Size of the KV cache in tokens, over all sequences; a multiple of `block_tokens`.
    pub kv_tokens_max: usize,
    /// Tokens per block, the unit in which KV is allocated.
    pub block_tokens: usize,
    /// Sequences that can hold tokens at one time.
    pub sequences_max: usize,
    /// Maximum tokens in one sequence.
    pub context_tokens_max: usize,
    /// Maximum tokens in one batch.
    pub batch_tokens_max: usize,
    /// Whether [`Session::forward`](super::Session::forward) is supported. Encoders compute embeddings or
    /// scores, and no text.
    pub generate: bool,
    /// Whether [`Session::fork`](super::Session::fork) is supported.
    pub fork: bool,
    /// Whether [`Session::truncate`](super::Session::truncate) is supported for lengths above 0.
    pub truncate: bool,
    /// Whether [`Session::save`](super::Session::save) and [`Session::restore`](super::Session::restore) are
    /// supported.
    pub save: bool,
    /// Pooling of [`Session::embed`](super::Session::embed); `None` if the session does not support it.
    pub embed: Option<Pooling>,
    /// Whether the bits of a row of logits depend only on the tokens of its sequence: not on the other
    /// sequences of the batch, the division into spans, or the number of threads.
    ///
    /// Speculation, resumed requests and failover guarantee identical tokens
    /// only if this is true; otherwise the result has the same distribution.
    pub batch_invariant: bool,
    /// Maximum adapters of one span ([`Span::adapters`](crate::batch::Span::adapters)); 0 if per-sequence
    /// adapters are not supported.
    pub span_adapters_max: usize,
    /// Maximum distinct sets of adapters in one batch: 1 if an adapter applies to the whole pass.
    pub batch_adapter_sets_max: usize,
    /// Checkpoints that [`Session::checkpoint`](super::Session::checkpoint) keeps per sequence: for recurrent
    /// states, which can only be truncated to a checkpoint. 0 if not supported.
    pub checkpoints_max: usize,
    /// Whether [`Session::sample`](super::Session::sample) is supported.
    pub device_sampling: bool,
}

impl Capabilities {
    /// A session of `sequences_max` sequences of at most `context_tokens_max` tokens that can only append
    /// and release: KV for all sequences at full length, blocks of one token, batches of up to 512 tokens.
    #[must_use]
    pub fn new(sequences_max: usize, context_tokens_max: usize) -> Self {
        Self {
            kv_tokens_max: sequences_max.saturating_mul(context_tokens_max),
            block_tokens: 1,
            sequences_max,
            context_tokens_max,
            batch_tokens_max: 512,
            generate: true,
            fork: false,
            truncate: false,
            save: false,
            embed: None,
            batch_invariant: false,
            span_adapters_max: 0,
            batch_adapter_sets_max: 1,
            checkpoints_max: 0,
            device_sampling: false,
        }
    }

    /// Length in tokens at which a sequence fills its context or the whole KV cache, whichever is smaller.
    pub fn context_window(&self) -> usize {
        self.context_tokens_max.min(self.kv_tokens_max)
    }

    /// Sets the tokens of KV over all sequences.
    #[must_use]
    pub fn kv_tokens(mut self, tokens: usize) -> Self {
        self.kv_tokens_max = tokens;
        self
    }

    /// Sets the tokens per block, at least 1.
    #[must_use]
    pub fn block_tokens(mut self, tokens: usize) -> Self {
        self.block_tokens = tokens;
        self
    }

    /// Sets the maximum tokens in one batch.
    #[must_use]
    pub fn batch_tokens(mut self, tokens: usize) -> Self {
        self.batch_tokens_max = tokens;
        self
    }

    /// Sets whether the session generates; true by default.
    #[must_use]
    pub fn generate(mut self, works: bool) -> Self {
        self.generate = works;
        self
    }

    /// Sets whether sequences can be forked.
    #[must_use]
    pub fn fork(mut self, works: bool) -> Self {
        self.fork = works;
        self
    }

    /// Sets whether sequences can be truncated to lengths above 0.
    #[must_use]
    pub fn truncate(mut self, works: bool) -> Self {
        self.truncate = works;
        self
    }

    /// Sets whether sequences can be saved and restored.
    #[must_use]
    pub fn save(mut self, works: bool) -> Self {
        self.save = works;
        self
    }

    /// Sets the pooling of embeddings; `None` if the session does not support embeddings.
    #[must_use]
    pub fn embed(mut self, pooling: Option<Pooling>) -> Self {
        self.embed = pooling;
        self
    }

    /// Sets whether the bits of a row of logits are independent of the batch.
    #[must_use]
    pub fn batch_invariant(mut self, holds: bool) -> Self {
        self.batch_invariant = holds;
        self
    }

    /// Sets the maximum adapters per span and the maximum distinct sets of adapters per batch.
    #[must_use]
    pub fn adapters(mut self, span_max: usize, batch_sets_max: usize) -> Self {
        self.span_adapters_max = span_max;
        self.batch_adapter_sets_max = batch_sets_max;
        self
    }

    /// Sets the number of checkpoints kept per sequence.
    #[must_use]
    pub fn checkpoints(mut self, max: usize) -> Self {
        self.checkpoints_max = max;
        self
    }

    /// Sets whether rows can be sampled on the device.
    #[must_use]
    pub fn device_sampling(mut self, works: bool) -> Self {
        self.device_sampling = works;
        self
    }
}
