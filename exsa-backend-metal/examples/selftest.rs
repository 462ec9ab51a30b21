//! Checks an Apple GPU and prints a report for an issue: every kernel against plain arithmetic, a model
//! against the candle backend, and the time of a pass.
//!
//! ```sh
//! cargo run --release -p exsa-backend-metal --example selftest
//! cargo run --release -p exsa-backend-metal --example selftest -- model.gguf
//! ```

use exsa_backend_candle::CandleBackend;
use exsa_backend_metal::{MetalBackend, MetalDevices};
use exsa_conformance::{Comparison, compare};
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::{SeqId, TokenId};
use exsa_gpu::device::{Device, Devices};
use exsa_gpu::kernel::Module;
use exsa_gpu::selftest;
use std::process::ExitCode;
use std::time::Instant;

/// Difference of logits allowed, relative to the largest one: the CPU quantizes activations to 8 bits.
const LIMIT: f32 = 0.05;

/// Tokens of the prompt, and passes, that are timed.
const PROMPT: usize = 512;
const PASSES: usize = 64;

fn main() -> ExitCode {
    println!("### exsa-backend-metal {} selftest\n", env!("CARGO_PKG_VERSION"));
    let devices = MetalDevices::new();
    if let Some(reason) = devices.unavailable() {
        println!("No GPU: {reason}. Nothing was checked.");
        return ExitCode::FAILURE;
    }
    let source = match std::env::args_os().nth(1) {
        Some(path) => ModelSource::file(path),
        None => ModelSource::Embedded(exsa_tiny::GGUF),
    };
    let checks = [kernels(&devices), model(&source), speed(&source)];
    for error in checks.iter().filter_map(|check| check.as_ref().err()) {
        println!("FAILED: {error}");
    }
    if checks.iter().all(|check| matches!(check, Ok(true))) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every kernel against plain arithmetic.
fn kernels(devices: &MetalDevices) -> Result<bool, String> {
    let device = devices.open(None).map_err(|error| error.to_string())?;
    let info = device.info();
    println!("- device: {} ({}), memory {:?} bytes", device.description(), info.name, info.memory_total);
    let (mut passed, mut failed) = (0, 0);
    for module in Module::all() {
        match selftest::check(&*device, module, 1) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    if outcome.passed() {
                        passed += 1;
                    } else {
                        failed += 1;
                        println!("  - {outcome}");
                    }
                }
            }
            Err(error) => {
                failed += 1;
                println!("  - FAILED {}: {error}", module.name());
            }
        }
    }
    println!("- kernels: {passed} checks passed, {failed} failed");
    Ok(failed == 0)
}

/// A model against the candle backend.
fn model(source: &ModelSource) -> Result<bool, String> {
    let metal = MetalBackend::new(MetalDevices::new());
    let found = compare(&metal, &CandleBackend::new(), source)?;
    let Comparison { difference, equal_tokens, .. } = found;
    println!(
        "- model against candle: difference {difference:.2e} (limit {LIMIT}), {equal_tokens} of {} greedy tokens equal",
        Comparison::GREEDY
    );
    Ok(difference <= LIMIT)
}

/// The time of a prompt and of passes of one token.
fn speed(source: &ModelSource) -> Result<bool, String> {
    let start = Instant::now();
    let metal = MetalBackend::new(MetalDevices::new());
    let model = metal.load(source, &LoadOptions::new(), &mut LoadProgress::none());
    let model = model.map_err(|error| error.to_string())?;
    println!("- loading: {:.2} s", start.elapsed().as_secs_f64());
    let context = model.info().n_ctx.max(2);
    let prompt = PROMPT.min(context / 2);
    let passes = PASSES.min(context - prompt);
    let options = SessionOptions::new().sequences(2).kv_tokens(2 * (PROMPT + PASSES)).batch_tokens(PROMPT);
    let mut session = model.session(&options).map_err(|error| error.to_string())?;
    let tokens: Vec<TokenId> = (0..prompt).map(|i| (3 + i * 37 % 500) as TokenId).collect();
    let mut start = Instant::now();
    for seq in 0..2 {
        start = Instant::now();
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(seq), 0, &tokens).rows(1));
        session.forward(&batch).map_err(|error| error.to_string())?;
    }
    println!("- prefill of {prompt}: {:.0} tokens/s", prompt as f64 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    for pass in 0..passes {
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), prompt + pass, &[3]).rows(1));
        session.forward(&batch).map_err(|error| error.to_string())?;
    }
    println!("- decode: {:.1} tokens/s", passes as f64 / start.elapsed().as_secs_f64());
    Ok(true)
}
