//! Shared parts of the integration tests: finding models, running tokens, comparing logits.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod edit;

use exsa_backend_candle::CandleBackend;
use exsa_backend_llamacpp::{FlashAttention, KvLayout, LlamaCppBackend};
use exsa_core::SeqId;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
    ThreadOptions,
};
use exsa_core::batch::{Batch, Span};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

/// A file of the optional test data; `None`, with the reason printed, if it is not there.
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("EXSA_TEST_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let path = root.join("models").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there; set EXSA_TEST_DATA to the folder of test data", path.display());
    None
}

/// One of the micro models that the candle backend is tested with.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../exsa-backend-candle/tests/data")).join(name)
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

/// The backend with as few roundings as it can do with: attention in plain operations. Its sessions are to have
/// [`exact_options`].
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

/// Appends `tokens` to `seq` in one span and returns the logits of its last `rows` tokens.
pub fn feed(
    session: &mut dyn Session,
    seq: u32,
    position: usize,
    tokens: &[u32],
    rows: usize,
) -> Vec<Vec<f32>> {
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(seq), position, tokens).rows(rows));
    let logits = session.forward(&batch).unwrap().logits().unwrap();
    assert_eq!(logits.rows(), rows);
    (0..rows).map(|row| logits.row(row).unwrap().to_vec()).collect()
}

pub fn argmax(row: &[f32]) -> u32 {
    let (best, _) = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best as u32
}

/// `n` greedy tokens after `prompt`, which `seq` does not hold yet.
pub fn greedy(session: &mut dyn Session, seq: u32, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut position = prompt.len();
    let mut row = feed(session, seq, 0, prompt, 1).remove(0);
    let mut tokens = Vec::with_capacity(n);
    loop {
        tokens.push(argmax(&row));
        if tokens.len() == n {
            return tokens;
        }
        row = feed(session, seq, position, &tokens[tokens.len() - 1..], 1).remove(0);
        position += 1;
    }
}

/// Largest difference of two rows.
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, d| if d.is_nan() { f32::NAN } else { f32::max(m, d) })
}

/// `n` tokens of no meaning.
pub fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|i| 3 + (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) % 500).collect()
}
