//! Speed of a generated model: random weights, since speed does not depend on the values.

use crate::options::Options;
use crate::report::{Found, TimeLeft};
use exsa_benches::progress::say;
use exsa_benches::shape::{SHAPES, Types};
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::{SeqId, TokenId};
use exsa_gpu::GpuBackend;
use exsa_gpu::device::Devices;
use exsa_quant::Mixture;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Tokens of every stream's prompt before decoding is measured.
const PROMPT: usize = 64;

/// Passes before those that are measured.
const WARM_UP: usize = 8;

/// Generates the model and measures decoding and prefill.
pub fn measure<P: Devices + Clone>(devices: &P, options: &Options, time: TimeLeft) -> Result<Found, String> {
    let path = options.folder.join("generated.gguf");
    let start = Instant::now();
    generate(&options.shape, &path)?;
    let generated = start.elapsed().as_secs_f64();
    let result = measure_file(devices, options, &path, time);
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    let _ = std::fs::remove_file(&path);
    let mut value = result?;
    value["model"] =
        json!({ "shape": options.shape, "types": "Q4_K_M", "bytes": bytes, "generation_s": generated });
    value["prompt_tokens"] = json!(PROMPT);
    Ok(Found { value, passed: true })
}

fn generate(name: &str, path: &Path) -> Result<(), String> {
    let shape = SHAPES.iter().find(|shape| shape.name == name).ok_or_else(|| format!("no shape '{name}'"))?;
    let mixture = Mixture::from_name("Q4_K_M").ok_or("no mixture Q4_K_M")?;
    shape.write(&Types::Mixture(mixture), path).map_err(|error| format!("{}: {error}", path.display()))
}

fn measure_file<P: Devices + Clone>(
    devices: &P,
    options: &Options,
    path: &Path,
    time: TimeLeft,
) -> Result<Value, String> {
    let start = Instant::now();
    let source = ModelSource::file(path.to_owned());
    let backend = GpuBackend::new(devices.clone());
    let model = backend.load(&source, &LoadOptions::new(), &mut LoadProgress::none());
    let model = model.map_err(|error| error.to_string())?;
    let loading = start.elapsed().as_secs_f64();
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    let mut decode = Vec::new();
    for streams in options.streams.iter().copied() {
        if !time.is_left() {
            decode.push(json!({ "streams": streams, "error": "no time was left" }));
            continue;
        }
        let mut one = match measure_decode(&*model, streams, options.passes) {
            Ok(seconds) => {
                let pass = seconds / options.passes as f64;
                json!({
                    "tokens_per_s": streams as f64 / pass,
                    "ms_per_pass": 1e3 * pass,
                    "weights_gb_per_s": bytes as f64 / pass / 1e9,
                })
            }
            Err(error) => json!({ "error": error }),
        };
        one["streams"] = json!(streams);
        say(&one);
        decode.push(one);
    }
    let prefill = match measure_prefill(&*model, options.prefill) {
        Ok(seconds) => {
            json!({ "tokens": options.prefill, "tokens_per_s": options.prefill as f64 / seconds, "s": seconds })
        }
        Err(error) => json!({ "tokens": options.prefill, "error": error }),
    };
    say(&prefill);
    Ok(json!({ "load_s": loading, "decode": decode, "prefill": prefill }))
}

/// Seconds of `passes` passes with a token of each of `streams` sequences, all logits read.
fn measure_decode(model: &dyn Model, streams: usize, passes: usize) -> Result<f64, String> {
    let length = PROMPT + WARM_UP + passes;
    let options = SessionOptions::new()
        .sequences(streams)
        .kv_tokens(streams * (length + 32))
        .batch_tokens(PROMPT.max(streams));
    let mut session = model.session(&options).map_err(|error| error.to_string())?;
    let prompt: Vec<TokenId> = (0..PROMPT).map(token).collect();
    for stream in 0..streams {
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(stream as u32), 0, &prompt).rows(1));
        forward(&mut *session, &batch)?;
    }
    let mut start = Instant::now();
    for pass in 0..WARM_UP + passes {
        if pass == WARM_UP {
            start = Instant::now();
        }
        let mut batch = Batch::new();
        for stream in 0..streams {
            batch.push(Span::tokens(SeqId(stream as u32), PROMPT + pass, &[token(pass + stream)]).rows(1));
        }
        forward(&mut *session, &batch)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of the second of two passes over a prompt, each in a sequence of its own.
fn measure_prefill(model: &dyn Model, tokens: usize) -> Result<f64, String> {
    let options = SessionOptions::new().sequences(2).kv_tokens(2 * (tokens + 32)).batch_tokens(tokens);
    let mut session = model.session(&options).map_err(|error| error.to_string())?;
    let prompt: Vec<TokenId> = (0..tokens).map(token).collect();
    let mut seconds = 0.0;
    for seq in 0..2 {
        let start = Instant::now();
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(seq), 0, &prompt).rows(1));
        forward(&mut *session, &batch)?;
        seconds = start.elapsed().as_secs_f64();
    }
    Ok(seconds)
}

fn forward(session: &mut dyn Session, batch: &Batch) -> Result<(), String> {
    let output = session.forward(batch).map_err(|error| error.to_string())?;
    output.logits().map(|_| ()).ok_or_else(|| "no logits".to_owned())
}

fn token(i: usize) -> TokenId {
    (3 + i * 37 % 500) as TokenId
}
