//! Models of this backend in a registry: memory that comes back, and cycles of loads under streams.
//!
//! The tests run one at a time, since they measure the memory of the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Tensor;
use exsa_core::backend::{ModelSource, SessionOptions, ThreadOptions};
use exsa_core::gguf::{GgmlType, Value};
use exsa_core::registry::{ModelConfig, Registry, RegistryOptions};
use exsa_core::{EngineOptions, FinishReason, Generator, Request, SamplingParams, SubmitError};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use support::edit_of;

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident bytes of the process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn engine() -> EngineOptions {
    let session = SessionOptions::new().sequences(8).kv_tokens(1024).batch_tokens(128);
    EngineOptions::default().session(session.threads(ThreadOptions::compute(1)))
}

/// A llama of `n_layer` layers of width 1024 in q8_0, with pseudo-random weights: 13 MB a layer.
struct Synthetic(PathBuf);

impl Synthetic {
    fn new(n_layer: u64) -> Self {
        let (n_embd, n_ff, n_vocab) = (1024, 2816, 512);
        let mut edit = edit_of("llama-f32");
        edit.tensors.clear();
        for (key, value) in [
            ("context_length", 1024),
            ("embedding_length", n_embd),
            ("attention.head_count", 16),
            ("attention.head_count_kv", 16),
            ("feed_forward_length", n_ff),
            ("block_count", n_layer),
            ("rope.dimension_count", 64),
            ("attention.key_length", 64),
            ("attention.value_length", 64),
        ] {
            edit = edit.set(&format!("llama.{key}"), Value::U32(value as u32));
        }
        let mut random = 1u64;
        let mut add = |name: String, shape: &[u64]| {
            let n = shape.iter().product::<u64>();
            let (dtype, data) = if shape.len() == 1 {
                (GgmlType::F32, 1f32.to_le_bytes().repeat(n as usize))
            } else {
                let mut data = Vec::with_capacity((n / 32 * 34) as usize);
                for _ in 0..n / 32 {
                    // The scale, 2^-12 in f16, then 32 signed bytes.
                    data.extend(0x0c00u16.to_le_bytes());
                    for _ in 0..4 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        data.extend((random ^ (random >> 29)).to_le_bytes());
                    }
                }
                (GgmlType::Q8_0, data)
            };
            edit.tensors.push(Tensor { name, shape: shape.to_vec(), dtype, data });
        };
        add("token_embd.weight".to_owned(), &[n_embd, n_vocab]);
        add("output_norm.weight".to_owned(), &[n_embd]);
        for layer in 0..n_layer {
            for (part, shape) in [
                ("attn_norm", [n_embd].as_slice()),
                ("ffn_norm", &[n_embd]),
                ("attn_q", &[n_embd, n_embd]),
                ("attn_k", &[n_embd, n_embd]),
                ("attn_v", &[n_embd, n_embd]),
                ("attn_output", &[n_embd, n_embd]),
                ("ffn_gate", &[n_embd, n_ff]),
                ("ffn_up", &[n_embd, n_ff]),
                ("ffn_down", &[n_ff, n_embd]),
            ] {
                add(format!("blk.{layer}.{part}.weight"), shape);
            }
        }
        let path = std::env::temp_dir().join(format!("exsa-registry-{}-{n_layer}.gguf", std::process::id()));
        std::fs::write(&path, edit.bytes()).unwrap();
        Self(path)
    }

    fn config(&self, name: &str) -> ModelConfig {
        ModelConfig::new(name, Arc::new(CandleBackend::new()), ModelSource::file(&self.0)).engine(engine())
    }
}

impl Drop for Synthetic {
    fn drop(&mut self) {
        // A file that is left in the folder for temporary files does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// After an unload the process has given back what the estimate says; so it has after a sleep.
#[test]
fn an_unload_gives_back_what_was_estimated() {
    let _alone = alone();
    let file = Synthetic::new(16);
    let registry = Registry::new(RegistryOptions::new().memory_bytes(1 << 30)).unwrap();
    registry.add(file.config("large")).unwrap();
    let start = resident();
    for round in 0..3 {
        registry.load("large").wait().unwrap();
        // A long prompt touches KV and scratch.
        let prompt = Request::tokens((0..100).map(|i| 3 + i * 37 % 500).collect::<Vec<u32>>());
        registry.submit(prompt.model("large").max_tokens(2)).unwrap().complete().unwrap();
        let estimate = registry.status("large").unwrap().memory.unwrap();
        assert!(estimate.weights > 150 << 20, "{estimate:?}");
        let loaded = resident();
        let gives = if round == 1 { registry.sleep("large", None) } else { registry.unload("large", None) };
        gives.wait().unwrap();
        let end = resident();
        let given = loaded.saturating_sub(end);
        println!("{estimate:?}: resident {start} at first, {loaded} loaded, {end} after, {given} given back");
        // KV pages that no token has used are estimated, but not resident.
        assert!(given as f64 > 0.95 * estimate.weights as f64, "{given} of {estimate:?}");
        assert!(given <= estimate.total() + (16 << 20), "{given} of {estimate:?}");
        // The allocator keeps some pages for each thread that has run.
        assert!(end < start + (32 << 20), "{start} at first, {end} after round {round}");
    }
}

/// Fifty cycles of reload, unload and load under eight streams: requests fail only as documented, and the
/// memory of the process does not grow.
#[test]
fn fifty_cycles_under_eight_streams() {
    let _alone = alone();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf");
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    let config = ModelConfig::new("tiny", Arc::new(CandleBackend::new()), ModelSource::file(path));
    registry.add(config.engine(engine())).unwrap();
    registry.load("tiny").wait().unwrap();
    let request = || {
        let request = Request::text("Once upon a time").sampling(SamplingParams::greedy());
        request.model("tiny").max_tokens(12)
    };
    let truth = registry.submit(request()).unwrap().complete().unwrap().text;
    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let mut sizes = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    match registry.submit(request()) {
                        Ok(stream) => {
                            let answer = stream.complete().unwrap();
                            if answer.reason == FinishReason::Cancelled {
                                assert!(truth.starts_with(&answer.text), "{answer:?}");
                            } else {
                                assert_eq!(answer.text, truth);
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        Err(SubmitError::ModelUnloaded { .. } | SubmitError::ModelLoading { .. }) => {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        for cycle in 0..50 {
            registry.reload("tiny", None).wait().unwrap();
            let grace = (cycle % 3 == 2).then_some(Duration::ZERO);
            registry.unload("tiny", grace).wait().unwrap();
            sizes.push(resident());
            registry.load("tiny").wait().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 0);
    assert_eq!((registry.stats().submitted, registry.stats().failed), (registry.stats().finished, 0));
    // The first cycles still grow allocator, thread stacks and page tables.
    let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len() as u64;
    let (early, late) = (mean(&sizes[10..20]), mean(&sizes[40..]));
    println!("resident after unloads: {early} in cycles 10 to 20, {late} in the last ten");
    assert!(late < early + (16 << 20).max(early / 50), "{sizes:?}");
}
