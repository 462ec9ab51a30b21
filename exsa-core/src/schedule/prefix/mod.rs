//! The prefix cache: reuses KV that sequences already hold.
//!
//! A radix tree over token ids (as in RadixAttention, Zheng et al., SGLang, NeurIPS 2024) records the tokens
//! whose KV some sequence holds: sequences of running requests, and idle sequences cached when their request
//! ended. It tracks sequences, not blocks, and so works with every backend that can fork.

mod record;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use tree::common_len;
pub use tree::{Match, PrefixTree};

use std::sync::Arc;

/// Limits of the prefix cache.
///
/// Cached KV never delays a request: it is evicted, least recently used first, as soon as a request needs the
/// space. The limits keep the cache smaller than the KV cache would allow.
///
/// ```
/// use exsa_core::{EngineOptions, PrefixCacheOptions};
///
/// let prefixes = PrefixCacheOptions::default().bytes_max(256 << 20);
/// let options = EngineOptions::default().prefix_cache(prefixes);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct PrefixCacheOptions {
    /// Whether prefixes are shared and cached; `true` by default.
    pub enabled: bool,
    /// Maximum tokens of cached KV that no request uses; the whole KV cache by default.
    pub tokens_max: Option<usize>,
    /// Maximum bytes of cached KV that no request uses; no limit by default.
    pub bytes_max: Option<u64>,
    /// Sequences to request from the session beyond the running maximum, so that prefixes stay cached even
    /// when the maximum number of requests is running; 32 by default. A session that does not support them
    /// still caches prefixes in unused sequences.
    pub sequences_max: usize,
}

impl Default for PrefixCacheOptions {
    fn default() -> Self {
        Self { enabled: true, tokens_max: None, bytes_max: None, sequences_max: 32 }
    }
}

impl PrefixCacheOptions {
    /// No prefix is shared or cached.
    pub fn disabled() -> Self {
        Self { enabled: false, sequences_max: 0, ..Self::default() }
    }

    /// Sets whether prefixes are shared and cached.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the maximum tokens of cached KV that no request uses.
    #[must_use]
    pub fn tokens_max(mut self, tokens_max: impl Into<Option<usize>>) -> Self {
        self.tokens_max = tokens_max.into();
        self
    }

    /// Sets the maximum bytes of cached KV that no request uses.
    #[must_use]
    pub fn bytes_max(mut self, bytes_max: impl Into<Option<u64>>) -> Self {
        self.bytes_max = bytes_max.into();
        self
    }

    /// Sets the number of sequences beyond the running maximum.
    #[must_use]
    pub fn sequences_max(mut self, sequences_max: usize) -> Self {
        self.sequences_max = sequences_max;
        self
    }
}

/// Properties, besides the tokens, that must be equal for KV to be shared. The model is not included, since
/// an engine has only one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// Key of the adapters that computed the KV; `None` for the model alone. It consists of their names,
    /// weights and scales: `NAME@FINGERPRINT`, with `*SCALE` unless that is 1, joined by `+`.
    pub adapter: Option<Arc<str>>,
    /// The request's [`cache_salt`](crate::Request::cache_salt).
    pub salt: Option<Arc<str>>,
}

impl Namespace {
    /// Names and scales of the adapters, without their weights' fingerprints: `alice`, `alice*0.5+bob`.
    pub(crate) fn adapter_names(&self) -> Option<Arc<str>> {
        let key = self.adapter.as_deref()?;
        let names = key.split('+').map(|part| {
            let (name, rest) = part.split_once('@').unwrap_or((part, ""));
            let scale = rest.find('*').map_or("", |at| &rest[at..]);
            format!("{name}{scale}")
        });
        Some(names.collect::<Vec<_>>().join("+").into())
    }
}
