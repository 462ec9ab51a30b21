//! Facts about an engine that other processes need.

use crate::backend::{Capabilities, Fingerprint};
use crate::model_info::ModelInfo;

/// Constant facts about an [`Engine`](crate::Engine): what a [`RequestValidator`](crate::RequestValidator) in
/// another process needs.
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
    /// Facts about an engine whose KV takes the model's bytes per token.
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
