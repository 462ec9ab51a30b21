//! Adapters of requests and engines: names, scales, limits, errors.

use crate::backend::{AdapterInfo, Fingerprint};
use crate::error::LoadError;
use crate::generator::SubmitError;
use crate::token::AdapterId;
use std::sync::Arc;

/// An adapter that a request uses, and the factor on its product.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct RequestAdapter {
    /// Its name in the engine.
    pub name: String,
    /// Factor on what it adds; 1, the default in JSON, is the trained strength, 0 leaves it out.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub scale: f32,
}

#[cfg(feature = "serde")]
fn one() -> f32 {
    1.0
}

/// Limits of the adapters of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct AdapterOptions {
    /// Maximum loaded adapters; 64 by default.
    pub count_max: usize,
    /// Maximum bytes of all adapters in memory; 1 GiB by default.
    pub bytes_max: u64,
}

impl Default for AdapterOptions {
    fn default() -> Self {
        Self { count_max: 64, bytes_max: 1 << 30 }
    }
}

impl AdapterOptions {
    /// The default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum loaded adapters.
    #[must_use]
    pub fn count_max(mut self, max: usize) -> Self {
        self.count_max = max;
        self
    }

    /// Sets the maximum bytes of all adapters.
    #[must_use]
    pub fn bytes_max(mut self, max: u64) -> Self {
        self.bytes_max = max;
        self
    }
}

/// A loaded adapter of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterStatus {
    /// Its id, which the engine gives once.
    pub id: AdapterId,
    /// Its name.
    pub name: Arc<str>,
    /// Largest rank of its matrices.
    pub rank: usize,
    /// Bytes in memory.
    pub bytes: u64,
    /// Identifies its weights.
    pub fingerprint: Fingerprint,
    /// Requests that use it, running or waiting.
    pub requests: usize,
}

impl AdapterStatus {
    pub(crate) fn new(name: Arc<str>, info: AdapterInfo, requests: usize) -> Self {
        let AdapterInfo { id, rank, bytes, fingerprint, .. } = info;
        Self { id, name, rank, bytes, fingerprint, requests }
    }
}

/// Why an adapter could not be loaded or unloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The name has characters that names must not have, or is too long.
    #[error("'{name}' is no name of an adapter: 1 to 200 letters, digits, spaces and -_.:/ are allowed")]
    Name {
        /// The name, without control characters.
        name: String,
    },
    /// The name is taken.
    #[error("adapter '{name}' is loaded already; unload it first")]
    AlreadyLoaded {
        /// The name.
        name: String,
    },
    /// There is no adapter of this name.
    #[error("there is no adapter '{name}'; loaded: {}", listed(loaded))]
    Unknown {
        /// The name.
        name: String,
        /// Names of the loaded adapters.
        loaded: Vec<String>,
    },
    /// As many adapters are loaded as are allowed.
    #[error("{limit} adapters are loaded, which is the limit; unload one first")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The adapter does not fit into the memory budget that its model shares with others, even without all
    /// models that may be evicted.
    #[error(
        "adapter '{name}' needs {needed} bytes, but the budget is {budget} and its own model, and models that \
         are busy, pinned or loading, hold {held}"
    )]
    Budget {
        /// Its name.
        name: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes of its own model and of those that cannot be evicted.
        held: u64,
        /// Bytes of the budget.
        budget: u64,
    },
    /// The generator loads no adapters.
    #[error("adapters: {reason}")]
    Unsupported {
        /// The reason.
        reason: String,
    },
    /// The generator has no such model, or it is not ready.
    #[error(transparent)]
    Model(#[from] SubmitError),
    /// The model refused it.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<AdapterError> for LoadError {
    /// For an adapter that is loaded with its model.
    fn from(error: AdapterError) -> Self {
        match error {
            AdapterError::Load(error) => error,
            AdapterError::Budget { needed, held, budget, .. } => {
                Self::Memory { what: "the adapter", needed, available: budget.saturating_sub(held) }
            }
            error => Self::Option { option: "adapters", problem: error.to_string() },
        }
    }
}

/// Names for a message.
pub(crate) fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
