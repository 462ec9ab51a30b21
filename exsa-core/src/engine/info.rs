//! Description of an engine for other processes.

use crate::backend::{Capabilities, Fingerprint};
use crate::model_info::ModelInfo;

/// Constant properties of an [`Engine`](crate::Engine), from which a
/// [`RequestValidator`](crate::RequestValidator) in another process is built.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EngineInfo {
    /// The model.
    pub model: ModelInfo,
    /// Abilities and limits of the session.
    pub capabilities: Capabilities,
    /// Bytes of KV per token.
    pub kv_bytes_per_token: u64,
    /// Identifies the weights and the types of the KV.
    pub fingerprint: Fingerprint,
}

impl EngineInfo {
    /// Describes an engine whose KV takes [`ModelInfo::kv_bytes_per_token`].
    pub fn new(model: ModelInfo, capabilities: Capabilities) -> Self {
        let (kv_bytes_per_token, fingerprint) = (model.kv_bytes_per_token, model.fingerprint());
        Self { model, capabilities, kv_bytes_per_token, fingerprint }
    }

    /// Sets the bytes of KV per token.
    #[must_use]
    pub fn kv_bytes_per_token(mut self, bytes: u64) -> Self {
        self.kv_bytes_per_token = bytes;
        self
    }

    /// Sets the fingerprint.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = fingerprint;
        self
    }
}
