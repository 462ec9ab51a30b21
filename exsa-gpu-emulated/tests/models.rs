//! Models on the emulated device: logits of every architecture and type of weights against an independent
//! implementation in f64 (`exsa-backend-candle/tests/data/README.md`), and what happens when the device
//! fails.

#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_conformance::edit::Edit;
use exsa_conformance::harness::{feed, greedy, tokens, worst};
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{LoadError, StepError};
use exsa_core::gguf::Value;
use exsa_core::{SeqId, TokenId};
use exsa_gpu::GpuBackend;
use exsa_gpu::device::Devices;
use exsa_gpu_emulated::EmulatedDevices;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../exsa-backend-candle/tests/data")).join(name)
}

fn try_load(devices: EmulatedDevices, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
    GpuBackend::new(devices).load(source, &LoadOptions::new(), &mut LoadProgress::none())
}

/// The micro model `name`; `None` with a note where there is no device.
fn load(devices: EmulatedDevices, name: &str) -> Option<Arc<dyn Model>> {
    if let Some(reason) = devices.unavailable() {
        println!("skipped: {reason}");
        return None;
    }
    Some(try_load(devices, &ModelSource::file(data(&format!("{name}.gguf")))).unwrap())
}

/// Sessions with exact keys and values.
fn exact() -> SessionOptions {
    SessionOptions::new().kv_type(KvType::F32).sequences(4)
}

fn session(model: &Arc<dyn Model>) -> Box<dyn Session> {
    model.session(&exact()).unwrap()
}

struct Reference {
    prompt: Vec<u32>,
    rows: Vec<usize>,
    logits: Vec<Vec<f32>>,
    greedy: Vec<u32>,
}

impl Reference {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(data(&format!("{name}.txt"))).unwrap();
        let keys: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
        let numbers = |key: &str| keys[key].split(' ').map(|n| n.parse::<u32>().unwrap()).collect::<Vec<_>>();
        let vocab: usize = keys["vocab"].parse().unwrap();
        let bytes = std::fs::read(data(keys["logits"])).unwrap();
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Self {
            prompt: numbers("prompt"),
            rows: numbers("rows").into_iter().map(|row| row as usize).collect(),
            logits: values.chunks_exact(vocab).map(<[f32]>::to_vec).collect(),
            greedy: numbers("greedy"),
        }
    }
}

/// Logits within 3e-5 of the reference, relative to the largest, in one batch and in chunks of 7 tokens; the
/// greedy continuation of the prompt begins like the reference's.
fn check(name: &str) {
    // More groups than the rows of a batch make, so that single rows of attention are split.
    let Some(model) = load(EmulatedDevices::new().groups_wanted(16), name) else { return };
    let reference = Reference::read(name);
    let scale = reference.logits.iter().flatten().fold(0.0, |m, x| f32::max(m, x.abs()));
    for chunk in [reference.prompt.len(), 7] {
        let mut session = session(&model);
        let mut rows = Vec::new();
        for (i, tokens) in reference.prompt.chunks(chunk).enumerate() {
            rows.extend(feed(&mut *session, 0, i * chunk, tokens, tokens.len()));
        }
        let pairs = reference.rows.iter().zip(&reference.logits);
        let error = pairs.map(|(&row, expected)| worst(&rows[row], expected)).fold(0.0, f32::max) / scale;
        assert!(error < 3e-5, "{name}, chunks of {chunk}: {error:e}");
    }
    let continuation = greedy(&mut *session(&model), 0, &reference.prompt, 6);
    assert_eq!(continuation, reference.greedy[..6], "{name}");
}

#[test]
fn llama() {
    ["llama-f32", "llama-bias-f32", "llama3-f32"].into_iter().for_each(check);
}

#[test]
fn qwen() {
    ["qwen2-f32", "qwen3-f32"].into_iter().for_each(check);
}

#[test]
fn gemma() {
    ["gemma2-f32", "gemma3-f32"].into_iter().for_each(check);
}

#[test]
fn phi_and_granite() {
    ["phi3-f32", "granite-f32"].into_iter().for_each(check);
}

#[test]
fn smollm_and_glm() {
    ["smollm3-f32", "glm4-f32"].into_iter().for_each(check);
}

#[test]
fn olmo() {
    ["olmo2-f32", "olmo3-f32"].into_iter().for_each(check);
}

#[test]
fn exaone() {
    ["exaone4-f32"].into_iter().for_each(check);
}

#[test]
fn command_r_and_starcoder() {
    ["command-r-f32", "cohere2-f32", "starcoder2-f32"].into_iter().for_each(check);
}

#[test]
fn floats_of_16_bits() {
    ["llama-f16", "llama-bf16"].into_iter().for_each(check);
}

#[test]
fn quantized_in_blocks_of_32() {
    ["llama-q4_0", "llama-q4_1", "llama-q5_0", "llama-q5_1", "llama-q8_0"].into_iter().for_each(check);
}

#[test]
fn quantized_in_blocks_of_256() {
    ["llama-q2_k", "llama-q3_k", "llama-q4_k_m", "llama-q5_k"].into_iter().for_each(check);
}

/// The order of threads changes no bit, since no kernel's result depends on it.
#[test]
fn order_of_threads_changes_nothing() {
    let prompt = tokens(40, 3);
    let run = |seed| {
        let model = load(EmulatedDevices::new().seed(seed).races(true), "gemma2-f32")?;
        Some(feed(&mut *session(&model), 0, 0, &prompt, 33))
    };
    let Some(first) = run(0) else { return };
    assert_eq!(run(1).unwrap(), first);
    assert_eq!(run(2).unwrap(), first);
}

fn one(tokens: &[TokenId]) -> Batch {
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, tokens).rows(1));
    batch
}

#[test]
fn a_device_that_is_lost_ends_the_pass_with_an_error_in_words() {
    let prompt = tokens(9, 1);
    for launches in [0, 1, 7, 40] {
        let devices = EmulatedDevices::new().lost_after(launches);
        if let Some(reason) = devices.unavailable() {
            println!("skipped: {reason}");
            return;
        }
        let source = ModelSource::file(data("llama-q8_0.gguf"));
        if launches == 0 {
            match try_load(devices, &source) {
                Err(LoadError::Backend(text)) => assert!(text.contains("lost"), "{text}"),
                other => panic!("{:?}", other.map(|model| model.info().clone())),
            }
            continue;
        }
        let model = try_load(devices, &source).unwrap();
        let mut session = session(&model);
        // The second pass at the latest meets the end, and each one after it.
        let passes: Vec<_> = (0..3)
            .map(|_| {
                let result = session.forward(&one(&prompt)).map(|_| ());
                session.release(SeqId(0));
                result
            })
            .collect();
        for result in &passes[1..] {
            match result {
                Err(StepError::Backend(text)) => assert!(text.contains("lost"), "{text}"),
                other => panic!("after {launches} launches: {other:?}"),
            }
        }
        // Other devices are not touched by it.
        let other = load(EmulatedDevices::new(), "llama-q8_0").unwrap();
        assert!(other.session(&exact()).unwrap().forward(&one(&prompt)).is_ok());
    }
}

#[test]
fn too_little_memory_is_an_error_in_bytes() {
    let source = ModelSource::file(data("llama-q8_0.gguf"));
    let backend = GpuBackend::new(EmulatedDevices::new());
    if backend.devices().is_empty() {
        println!("skipped: {:?}", backend.provider().unavailable());
        return;
    }
    let estimate = backend.estimate(&source, &LoadOptions::new(), &exact()).unwrap();
    let too_little = |bytes| EmulatedDevices::new().memory(bytes);
    let refused =
        |error: LoadError| matches!(error, LoadError::Memory { needed, available, .. } if needed > available);
    assert!(refused(try_load(too_little(20_000), &source).err().unwrap()));
    let model = try_load(too_little(estimate.weights + 20_000), &source).unwrap();
    assert!(refused(model.session(&exact()).err().unwrap()));
    // With what was estimated, and room for the tables of positions, a pass runs.
    let model = try_load(too_little(estimate.total() + 200_000), &source).unwrap();
    assert!(model.session(&exact()).unwrap().forward(&one(&tokens(9, 1))).is_ok());
}

#[test]
fn unsupported_models_and_devices_are_refused_in_words() {
    let backend = GpuBackend::new(EmulatedDevices::new());
    if backend.devices().is_empty() {
        println!("skipped: {:?}", backend.provider().unavailable());
        return;
    }
    let source = ModelSource::file(data("llama-f32.gguf"));
    let options = LoadOptions::new().device("cuda:7");
    let error = backend.load(&source, &options, &mut LoadProgress::none()).err().unwrap().to_string();
    assert!(error.contains("no device 'cuda:7'") && error.contains("emulated:0"), "{error}");

    let edit = Edit::of(&std::fs::read(data("llama-f32.gguf")).unwrap()).unwrap();
    let edit = edit.set("general.architecture", Value::Str("mamba".to_owned()));
    let error = try_load(EmulatedDevices::new(), &edit.source()).err().unwrap().to_string();
    assert!(error.contains("mamba") && error.contains("qwen3"), "{error}");

    let model = load(EmulatedDevices::new(), "llama-f32").unwrap();
    let error = model.session(&SessionOptions::new().kv_type(KvType::Q8_0)).err().unwrap().to_string();
    assert!(error.contains("q8_0") && error.contains("f32, f16"), "{error}");
    let error = model.session(&SessionOptions::new().batch_tokens(70_000)).err().unwrap().to_string();
    assert!(error.contains("65535"), "{error}");
}
