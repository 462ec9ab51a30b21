//! Adapters of requests and engines: names, scales, limits, errors.

use crate::backend::{AdapterInfo, Fingerprint};
use crate::error::LoadError;
use crate::generator::SubmitError;
use crate::token::AdapterId;
use std::sync::Arc;

/// An adapter that a request uses, with its scale.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct RequestAdapter {
    /// Name of the adapter in the engine.
    pub name: String,
    /// Factor of the adapter's output; 1, the default in JSON, is the trained strength, 0 disables the
    /// adapter.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub scale: f32,
}

#[cfg(feature = "serde")]
fn one() -> f32 {
    1.0
}

/// Limits for the adapters of an engine.
///
/// ```
/// use exsa_core::EngineOptions;
/// use exsa_core::adapter::AdapterOptions;
///
/// let options = EngineOptions::default().adapters(AdapterOptions::new().count_max(8));
/// # let _ = options;
/// ```
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
    /// Id of the adapter; never reused by the engine.
    pub id: AdapterId,
    /// Its name.
    pub name: Arc<str>,
    /// Largest rank of its matrices.
    pub rank: usize,
    /// Bytes in memory.
    pub bytes: u64,
    /// Identifies the weights.
    pub fingerprint: Fingerprint,
    /// Number of requests that use it, running or waiting.
    pub requests: usize,
}

impl AdapterStatus {
    pub(crate) fn new(name: Arc<str>, info: AdapterInfo, requests: usize) -> Self {
        let AdapterInfo { id, rank, bytes, fingerprint, .. } = info;
        Self { id, name, rank, bytes, fingerprint, requests }
    }
}

/// Error of loading or unloading an adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The name is empty, too long or has characters that are not allowed.
    #[error("'{name}' is not a valid adapter name: 1 to 200 letters, digits, spaces and -_.:/ are allowed")]
    Name {
        /// The name, without control characters.
        name: String,
    },
    /// The name is already in use.
    #[error("adapter '{name}' is already loaded; unload it first")]
    AlreadyLoaded {
        /// The name.
        name: String,
    },
    /// There is no adapter with this name.
    #[error("there is no adapter '{name}'; loaded: {}", listed(loaded))]
    Unknown {
        /// The name.
        name: String,
        /// Names of the loaded adapters.
        loaded: Vec<String>,
    },
    /// The maximum number of adapters is loaded.
    #[error("{limit} adapters are loaded, which is the limit; unload one first")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The adapter does not fit into the memory budget that its model shares with others, even after evicting
    /// all models that can be evicted.
    #[error(
        "adapter '{name}' needs {needed} bytes, but the budget is {budget} and its own model, and models that \
         are busy, pinned or loading, hold {held}"
    )]
    Budget {
        /// Its name.
        name: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes of its own model and of the models that cannot be evicted.
        held: u64,
        /// Bytes of the budget.
        budget: u64,
    },
    /// The generator does not support loading adapters.
    #[error("adapters: {reason}")]
    Unsupported {
        /// The reason.
        reason: String,
    },
    /// The generator has no such model, or it is not ready.
    #[error(transparent)]
    Model(#[from] SubmitError),
    /// The backend refused the adapter.
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
