//! Shared by the integration tests: the micro models, backends and session options.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use exsa_backend_candle::CandleBackend;
use exsa_backend_llamacpp::{FlashAttention, KvLayout, LlamaCppBackend};
use exsa_conformance::edit::Edit;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
    ThreadOptions,
};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

/// One of the micro models that the candle backend is tested with.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../exsa-backend-candle/tests/data")).join(name)
}

/// The parts of a micro model.
pub fn edit_of(name: &str) -> Edit {
    Edit::of(&std::fs::read(data(&format!("{name}.gguf"))).unwrap()).unwrap()
}

/// The names of all micro models.
pub fn micro_models() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(data(""))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".gguf").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() > 15);
    names
}

/// The backend with as few roundings as it can do with: attention in plain operations. Its sessions are to
/// have [`exact_options`].
pub fn exact() -> LlamaCppBackend {
    LlamaCppBackend::new().flash_attention(FlashAttention::Off)
}

/// [`exact`] with each layout of KV.
pub fn layouts() -> [LlamaCppBackend; 2] {
    [exact().kv_layout(KvLayout::Unified), exact().kv_layout(KvLayout::Streams)]
}

pub fn load_with(backend: &dyn InferenceBackend, source: &ModelSource) -> Arc<dyn Model> {
    let options = LoadOptions::new().device("cpu".to_owned());
    backend.load(source, &options, &mut LoadProgress::none()).unwrap()
}

pub fn load(path: PathBuf) -> Arc<dyn Model> {
    load_with(&exact(), &ModelSource::file(path))
}

/// The candle backend; the sessions ask for exact keys and values.
pub fn candle_backend() -> CandleBackend {
    CandleBackend::new()
}

pub fn candle(path: PathBuf) -> Arc<dyn Model> {
    load_with(&candle_backend(), &ModelSource::file(path))
}

/// Options for one thread: on a busy machine, several wait for each other more than they compute.
pub fn options() -> SessionOptions {
    SessionOptions::new().threads(ThreadOptions::new(Some(NonZeroUsize::MIN)))
}

/// [`options`] with KV in 32 bits.
pub fn exact_options() -> SessionOptions {
    options().kv_type(KvType::F32)
}

/// A session with KV in 32 bits.
pub fn session(model: &Arc<dyn Model>) -> Box<dyn Session> {
    model.session(&exact_options()).unwrap()
}
