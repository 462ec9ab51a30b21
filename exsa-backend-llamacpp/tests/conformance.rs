//! The llama.cpp backend keeps to the contract, in both layouts of KV and on models of several kinds.
#![allow(clippy::panic)]

#[path = "../../exsa-backend-candle/tests/support/adapter.rs"]
mod adapter;
mod support;

use exsa_backend_llamacpp::{KvLayout, LlamaCppBackend};
use exsa_conformance::Fixture;
use exsa_core::backend::ModelSource;
use exsa_core::gguf::Value;
use support::{data, edit_of, exact, exact_options, options};

/// Differences of logits that come of summing in another order when a batch has another shape; of GELU, which
/// llama.cpp looks up in a table of 16 bits; of attention in 16 bits.
const SUMS: f32 = 1e-3;
const GELU: f32 = 0.05;
const HALVES: f32 = 0.015;

fn micro(layout: KvLayout, name: &str) -> Fixture {
    let other = if name == "qwen2-f32" { "llama-f32" } else { "qwen2-f32" };
    let file = |name: &str| ModelSource::file(data(&format!("{name}.gguf")));
    let tolerance = if name.starts_with("gemma") { GELU } else { SUMS };
    let base = edit_of(name);
    let architecture = match base.get("general.architecture") {
        Some(Value::Str(architecture)) => architecture.as_str(),
        other => panic!("{other:?}"),
    };
    let adapter = |rank, seed| {
        adapter::source(&adapter::gguf(architecture, 8.0, &adapter::pairs(&base, rank, seed, |_| true)))
    };
    Fixture::new(exact().kv_layout(layout), file(name))
        .adapters(adapter(4, 1), adapter(20, 2))
        .other_model(file(other))
        .session_options(exact_options())
        .tolerance(tolerance)
        .checksummed()
}

/// Default options: keys and values in 16 bits, and the fused attention. Weights are f32, since activations
/// in 8 bits turn differences of summing into steps that hide more than they test.
fn defaults() -> Fixture {
    let model = ModelSource::file(data("llama-f32.gguf"));
    Fixture::new(LlamaCppBackend::new(), model).session_options(options()).tolerance(HALVES).checksummed()
}

exsa_conformance::mount! {
    llama_unified: micro(KvLayout::Unified, "llama-f32"),
    llama_streams: micro(KvLayout::Streams, "llama-f32"),
    qwen3_unified: micro(KvLayout::Unified, "qwen3-f32"),
    qwen3_streams: micro(KvLayout::Streams, "qwen3-f32"),
    gemma2_unified: micro(KvLayout::Unified, "gemma2-f32"),
    gemma2_streams: micro(KvLayout::Streams, "gemma2-f32"),
    gemma3_unified: micro(KvLayout::Unified, "gemma3-f32"),
    gemma3_streams: micro(KvLayout::Streams, "gemma3-f32"),
    llama_defaults: defaults(),
}
