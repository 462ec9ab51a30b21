//! Logits and greedy tokens of models against the candle backend on the CPU.

use crate::Named;
use crate::report::Found;
use exsa_backend_candle::CandleBackend;
use exsa_benches::progress::say;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::{SeqId, TokenId};
use exsa_gpu::GpuBackend;
use exsa_gpu::device::Devices;
use serde_json::json;
use std::sync::Arc;

/// Tokens of the prompt, the last of which fill a pass of their own.
const PROMPT: usize = 48;

/// Greedy tokens.
const GREEDY: usize = 24;

/// Difference of logits allowed, relative to the largest one: the CPU quantizes activations to 8 bits.
const LIMIT: f32 = 0.05;

/// Compares each model.
pub fn check<P: Devices + Clone>(devices: &P, models: &[Named]) -> Result<Found, String> {
    let gpu = GpuBackend::new(devices.clone());
    let (mut found, mut passed) = (Vec::new(), true);
    for (name, source) in models {
        let result = compare(&gpu, source);
        let (value, is_right) = match result {
            Ok((difference, equal)) => {
                let is_right = difference <= LIMIT;
                (json!({ "model": name, "difference": difference, "equal_greedy_tokens": equal }), is_right)
            }
            Err(error) => (json!({ "model": name, "error": error }), false),
        };
        if !is_right {
            say(&value);
        }
        passed &= is_right;
        found.push(value);
    }
    Ok(Found { value: json!({ "limit": LIMIT, "of_greedy_tokens": GREEDY, "models": found }), passed })
}

/// Largest difference of logits relative to the largest logit, and the number of first greedy tokens that agree.
fn compare(gpu: &dyn InferenceBackend, source: &ModelSource) -> Result<(f32, usize), String> {
    let on_gpu = load(gpu, source)?;
    let on_cpu = load(&CandleBackend::new(), source)?;
    let vocabulary = on_cpu.info().n_vocab as u64;
    let prompt: Vec<TokenId> =
        (0..PROMPT as u64).map(|i| (3 + i * 7919 % (vocabulary - 3)) as TokenId).collect();
    let mut sessions = [session(&*on_gpu)?, session(&*on_cpu)?];
    let mut runs = [Vec::new(), Vec::new()];
    for (session, run) in sessions.iter_mut().zip(&mut runs) {
        let (first, last) = prompt.split_at(PROMPT - 5);
        run.extend(rows(&mut **session, 0, first, first.len())?);
        run.extend(rows(&mut **session, first.len(), last, last.len())?);
    }
    let mut difference = 0_f32;
    for (a, b) in runs[0].iter().zip(&runs[1]) {
        let largest = b.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
        for (a, b) in a.iter().zip(b) {
            let error = (a - b).abs() / largest;
            difference = if error.is_nan() { f32::INFINITY } else { difference.max(error) };
        }
    }
    let mut greedy = [Vec::new(), Vec::new()];
    for ((session, run), tokens) in sessions.iter_mut().zip(&runs).zip(&mut greedy) {
        let mut token = best(run.last().map_or(&[], Vec::as_slice));
        for i in 0..GREEDY {
            tokens.push(token);
            let row = rows(&mut **session, PROMPT + i, &[token], 1)?;
            token = best(row.last().map_or(&[], Vec::as_slice));
        }
    }
    let equal = greedy[0].iter().zip(&greedy[1]).take_while(|(a, b)| a == b).count();
    Ok((difference, equal))
}

/// Loads a model.
pub fn load(backend: &dyn InferenceBackend, source: &ModelSource) -> Result<Arc<dyn Model>, String> {
    let loaded = backend.load(source, &LoadOptions::new(), &mut LoadProgress::none());
    loaded.map_err(|error| format!("{}: {error}", backend.name()))
}

fn session(model: &dyn Model) -> Result<Box<dyn Session>, String> {
    let options = SessionOptions::new().sequences(1).kv_tokens(128).batch_tokens(64);
    model.session(&options).map_err(|error| error.to_string())
}

/// The logits of the last `n` of the tokens from `position` on.
fn rows(
    session: &mut dyn Session,
    position: usize,
    tokens: &[TokenId],
    n: usize,
) -> Result<Vec<Vec<f32>>, String> {
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), position, tokens).rows(n));
    let output = session.forward(&batch).map_err(|error| error.to_string())?;
    let logits = output.logits().ok_or("no logits")?;
    (0..logits.rows())
        .map(|row| logits.row(row).map(<[f32]>::to_vec).ok_or_else(|| "no row".to_owned()))
        .collect()
}

fn best(row: &[f32]) -> TokenId {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as TokenId)
}
