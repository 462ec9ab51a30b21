//! The model of benchmarks that need one.

use crate::error::BenchError;
use exsa_backend_candle::CandleBackend;
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource};
use std::path::PathBuf;
use std::sync::Arc;

/// The model that `EXSA_BENCH_MODEL` names.
pub fn named() -> Option<PathBuf> {
    std::env::var_os("EXSA_BENCH_MODEL").map(PathBuf::from)
}

/// The model that `EXSA_BENCH_MODEL` names, else SmolLM2 where `EXSA_SMOLLM2` names it, else the built-in
/// one; and its name.
pub fn any() -> Result<(Arc<dyn Model>, String), BenchError> {
    let smollm2 = std::env::var_os("EXSA_SMOLLM2").map(PathBuf::from).filter(|path| path.is_file());
    match named().or(smollm2) {
        Some(path) => load(ModelSource::file(path)),
        None => load(ModelSource::Embedded(exsa_tiny::GGUF)),
    }
}

/// Loads a model on candle's CPU backend.
pub fn load(source: ModelSource) -> Result<(Arc<dyn Model>, String), BenchError> {
    let mut progress = LoadProgress::none();
    let model = CandleBackend::new().load(&source, &LoadOptions::default(), &mut progress);
    let model = model.map_err(|source| BenchError::Load { what: "the model".into(), source })?;
    let name = model.info().summary();
    Ok((model, name))
}
