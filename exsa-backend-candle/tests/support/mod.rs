//! Shared by the integration tests: the micro models, and sessions with exact keys and values.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic)]

mod architectures;
pub mod folder;

pub use architectures::{ARCHITECTURES, MIXTURES, RECURRENT};

use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Edit;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use std::path::PathBuf;
use std::sync::Arc;

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
