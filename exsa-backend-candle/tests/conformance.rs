//! The candle backend keeps to the contract, on one model of each architecture and on several types of
//! weights.
#![allow(clippy::panic)]

#[path = "support/adapter.rs"]
mod adapter;
mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::Fixture;
use exsa_core::backend::{KvType, ModelSource, SessionOptions, ThreadOptions, ThreadTeam};
use exsa_core::gguf::Value;
use support::{data, edit_of};

/// The model `name` of `tests/data`.
fn micro(name: &str) -> Fixture {
    let other = if name == "qwen2-f32" { "llama-f32" } else { "qwen2-f32" };
    let file = |name: &str| ModelSource::file(data(&format!("{name}.gguf")));
    let base = edit_of(name);
    let architecture = match base.get("general.architecture") {
        Some(Value::Str(architecture)) => architecture.as_str(),
        other => panic!("{other:?}"),
    };
    let adapter = |rank, seed| {
        adapter::source(&adapter::gguf(architecture, 8.0, &adapter::pairs(&base, rank, seed, |_| true)))
    };
    let fixture = Fixture::new(CandleBackend::new(), file(name)).adapters(adapter(4, 1), adapter(20, 2));
    fixture.other_model(file(other)).checksummed()
}

fn micro_with(name: &str, options: SessionOptions) -> Fixture {
    micro(name).session_options(options)
}

/// Sessions on one thread team.
fn shared_team() -> SessionOptions {
    SessionOptions::new().team(&ThreadTeam::new(ThreadOptions::compute(2)))
}

/// The model that the examples run.
fn built_in() -> Fixture {
    let model = ModelSource::Embedded(include_bytes!("../../models/exsa-tiny-q8_0.gguf"));
    Fixture::new(CandleBackend::new(), model)
}

exsa_conformance::mount! {
    llama: micro("llama-f32").bitwise(),
    llama3: micro("llama3-f32").bitwise(),
    qwen2: micro("qwen2-f32").bitwise(),
    qwen3: micro("qwen3-f32").bitwise(),
    gemma2: micro("gemma2-f32").bitwise(),
    gemma3: micro("gemma3-f32").bitwise(),
    phi3: micro("phi3-f32").bitwise(),
    granite: micro("granite-f32").bitwise(),
    smollm3: micro("smollm3-f32").bitwise(),
    olmo3: micro("olmo3-f32").bitwise(),
    glm4: micro("glm4-f32").bitwise(),
    cohere2: micro("cohere2-f32").bitwise(),
    starcoder2: micro("starcoder2-f32").bitwise(),
    lfm2: micro("lfm2-f32").bitwise(),
    qwen35: micro("qwen35-f32").bitwise(),
    qwen3moe: micro("qwen3moe-f32").bitwise(),
    glm4moe: micro("glm4moe-f32").bitwise(),
    gpt_oss: micro("gpt-oss-mxfp4").bitwise(),
    llama_f16: micro("llama-f16").bitwise(),
    llama_q4_k_m: micro("llama-q4_k_m").bitwise(),
    llama_q8_0: micro("llama-q8_0").bitwise(),
    kv_of_32_bits: micro_with("llama-f32", SessionOptions::new().kv_type(KvType::F32)).bitwise(),
    kv_of_8_bits: micro_with("qwen2-f32", SessionOptions::new().kv_type(KvType::Q8_0)).bitwise(),
    gemma3_kv_of_32_bits: micro_with("gemma3-f32", SessionOptions::new().kv_type(KvType::F32)).bitwise(),
    gemma3_kv_of_8_bits: micro_with("gemma3-f32", SessionOptions::new().kv_type(KvType::Q8_0)).bitwise(),
    shared_team: micro_with("llama-q8_0", shared_team()).bitwise(),
    exsa_tiny: built_in().bitwise(),
}
