//! `system_fingerprint`: changes whenever the same request with the same seed may get another answer.

use exsa_core::model_info::ModelInfo;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The fingerprint of a model on this version of the engine.
pub(crate) fn system_fingerprint(model: &ModelInfo) -> String {
    let mut hasher = DefaultHasher::new();
    let ModelInfo { name, architecture, quantization, parameters, weights_bytes, .. } = model;
    (env!("CARGO_PKG_VERSION"), name, architecture, quantization, parameters, weights_bytes)
        .hash(&mut hasher);
    format!("fp_{:016x}", hasher.finish())
}
