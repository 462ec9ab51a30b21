//! Shared by the integration tests: the micro models, and sessions with exact keys and values.
#![allow(dead_code, clippy::unwrap_used)]

use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Edit;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use std::path::PathBuf;
use std::sync::Arc;

/// A model of every architecture, in f32.
pub const ARCHITECTURES: [&str; 16] = [
    "llama-f32",
    "llama3-f32",
    "qwen2-f32",
    "qwen3-f32",
    "gemma2-f32",
    "gemma3-f32",
    "phi3-f32",
    "granite-f32",
    "smollm3-f32",
    "olmo2-f32",
    "olmo3-f32",
    "glm4-f32",
    "exaone4-f32",
    "command-r-f32",
    "cohere2-f32",
    "starcoder2-f32",
];

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).join(name)
}

/// The parts of a micro model.
pub fn edit_of(name: &str) -> Edit {
    Edit::of(&std::fs::read(data(&format!("{name}.gguf"))).unwrap()).unwrap()
}

/// Options that keep keys and values exact, to be compared with exact ones.
pub fn exact() -> SessionOptions {
    SessionOptions::new().kv_type(KvType::F32)
}

pub fn load(path: PathBuf) -> Arc<dyn Model> {
    let options = LoadOptions::new().device("cpu".to_owned());
    CandleBackend::new().load(&ModelSource::file(path), &options, &mut LoadProgress::none()).unwrap()
}

pub fn session(model: &Arc<dyn Model>) -> Box<dyn Session> {
    model.session(&exact()).unwrap()
}
