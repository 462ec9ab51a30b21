//! The prefix cache: what sequences hold already is not computed again.
//!
//! A radix tree over token ids (as in RadixAttention, Zheng et al., SGLang, NeurIPS 2024) knows the tokens whose KV some
//! sequence holds: sequences of requests that run, and idle ones that were kept when their request ended. It
//! speaks of sequences, not of blocks, and so works with every backend that can fork.

#[cfg(test)]
mod tests;
mod tree;

pub(crate) use tree::common_len;
pub use tree::{Match, PrefixTree};

use std::sync::Arc;

/// How much the prefix cache keeps.
///
/// Kept KV is never in the way of a request: it is evicted, least recently used first, as soon as a request needs its
/// room. The limits are for those who want to keep less than the KV cache would hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct PrefixCacheOptions {
    /// Whether prefixes are shared and kept; `true` by default.
    pub enabled: bool,
    /// Tokens of KV that are kept and that no request uses; the whole KV cache by default.
    pub tokens_max: Option<usize>,
    /// The same in bytes.
    pub bytes_max: Option<u64>,
    /// Sequences that the session is asked for beyond those of the requests, so that idle ones are still there when every
    /// request slot is taken; 32 by default. A session that does not give them still caches, in the slots that are free.
    pub sequences_max: usize,
}

impl Default for PrefixCacheOptions {
    fn default() -> Self {
        Self { enabled: true, tokens_max: None, bytes_max: None, sequences_max: 32 }
    }
}

impl PrefixCacheOptions {
    /// No prefix is shared or kept.
    pub fn disabled() -> Self {
        Self { enabled: false, sequences_max: 0, ..Self::default() }
    }

    /// Sets whether prefixes are shared and kept.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the tokens of KV that are kept and that no request uses.
    #[must_use]
    pub fn tokens_max(mut self, tokens_max: impl Into<Option<usize>>) -> Self {
        self.tokens_max = tokens_max.into();
        self
    }

    /// Sets the bytes of KV that are kept and that no request uses.
    #[must_use]
    pub fn bytes_max(mut self, bytes_max: impl Into<Option<u64>>) -> Self {
        self.bytes_max = bytes_max.into();
        self
    }

    /// Sets the sequences beyond those of the requests.
    #[must_use]
    pub fn sequences_max(mut self, sequences_max: usize) -> Self {
        self.sequences_max = sequences_max;
        self
    }
}

/// What has to be equal, besides the tokens, for KV to be shared. An engine has one model, so that it is not named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// The adapter that computed the KV; `None` for the model alone.
    pub adapter: Option<Arc<str>>,
    /// The request's [`cache_salt`](crate::Request::cache_salt).
    pub salt: Option<Arc<str>>,
}
