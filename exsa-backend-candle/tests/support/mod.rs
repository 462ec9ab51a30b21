//! Shared by the integration tests: finding models, running tokens, comparing logits.
#![allow(dead_code, clippy::unwrap_used)]

pub mod edit;

use exsa_backend_candle::CandleBackend;
use exsa_core::SeqId;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::batch::{Batch, Span};
use std::path::PathBuf;
use std::sync::Arc;

/// A model of the optional test data; `None`, with the reason printed, if it is not there.
pub fn shared_model(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("EXSA_TEST_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let path = root.join("models").join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there; set EXSA_TEST_DATA to the folder of test data", path.display());
    None
}

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).join(name)
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
    (0..logits.rows()).map(|row| logits.row(row).unwrap().to_vec()).collect()
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
