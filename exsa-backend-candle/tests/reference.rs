//! Logits of every architecture and every quantization against those of an independent implementation in
//! float64.

#![allow(clippy::unwrap_used)]

mod support;

use exsa_conformance::harness::{feed, greedy, worst};
use std::collections::HashMap;
use support::{data, load, session};

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
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        Self {
            prompt: numbers("prompt"),
            rows: numbers("rows").into_iter().map(|row| row as usize).collect(),
            logits: values.chunks_exact(vocab).map(<[f32]>::to_vec).collect(),
            greedy: numbers("greedy"),
        }
    }

    /// The largest absolute logit, which errors are measured against.
    fn scale(&self) -> f32 {
        self.logits.iter().flatten().fold(0.0, |m, x| f32::max(m, x.abs()))
    }
}

/// Compares logits and greedy continuation; the error is relative to the largest logit.
fn check(name: &str, tolerance: f32) {
    let reference = Reference::read(name);
    let model = load(data(&format!("{name}.gguf")));
    let rows = feed(&mut *session(&model), 0, 0, &reference.prompt, reference.prompt.len());
    let pairs = reference.rows.iter().zip(&reference.logits);
    let error =
        pairs.map(|(&row, expected)| worst(&rows[row], expected)).fold(0.0, f32::max) / reference.scale();
    assert!(error < tolerance, "{name}: {error:e}");
    let continuation = greedy(&mut *session(&model), 0, &reference.prompt, reference.greedy.len());
    assert_eq!(continuation, reference.greedy, "{name}");
}

#[test]
fn llama() {
    check("llama-f32", 1e-5);
    check("llama-bias-f32", 1e-5);
    check("llama3-f32", 1e-5);
}

#[test]
fn qwen() {
    check("qwen2-f32", 1e-5);
    check("qwen3-f32", 1e-5);
}

#[test]
fn gemma() {
    check("gemma2-f32", 1e-5);
    check("gemma3-f32", 1e-5);
}

#[test]
fn phi() {
    check("phi3-f32", 1e-5);
}

#[test]
fn granite() {
    check("granite-f32", 1e-5);
}

/// Every fourth layer has no RoPE.
#[test]
fn smollm() {
    check("smollm3-f32", 1e-5);
}

/// OLMo 2 has no windows; OLMo 3 has, and scaled RoPE on the other layers.
#[test]
fn olmo() {
    check("olmo2-f32", 1e-5);
    check("olmo3-f32", 1e-5);
}

#[test]
fn glm() {
    check("glm4-f32", 1e-5);
}

/// RoPE on all layers, and on those with a window alone.
#[test]
fn exaone() {
    check("exaone4-f32", 1e-5);
    check("exaone4-64-f32", 1e-5);
}

#[test]
fn command_r() {
    check("command-r-f32", 1e-5);
    check("cohere2-f32", 1e-5);
}

#[test]
fn mixtral() {
    check("mixtral-f32", 1e-5);
}

/// With a shared expert behind a gate, and without.
#[test]
fn qwen_experts() {
    check("qwen2moe-f32", 1e-5);
    check("qwen3moe-f32", 1e-5);
    check("qwen3moe-q8_0", 0.05);
}

#[test]
fn olmoe() {
    check("olmoe-f32", 1e-5);
}

#[test]
fn granite_experts() {
    check("granitemoe-f32", 1e-5);
}

/// Attention sinks, windows, YaRN, biases of experts and their clamped gate.
#[test]
fn gpt_oss() {
    check("gpt-oss-f32", 1e-5);
    check("gpt-oss-mxfp4", 0.05);
}

/// Groups of experts, sigmoids with a bias, and dense layers before.
#[test]
fn glm_experts() {
    check("glm4moe-f32", 1e-5);
}

#[test]
fn ernie_experts() {
    check("ernie4_5-moe-f32", 1e-5);
}

#[test]
fn starcoder() {
    check("starcoder2-f32", 1e-5);
}

#[test]
fn lfm() {
    check("lfm2-f32", 1e-5);
}

#[test]
fn gated_delta_nets() {
    check("qwen35-f32", 1e-5);
}

#[test]
fn floats_of_16_bits() {
    check("llama-f16", 1e-5);
    check("llama-bf16", 1e-5);
}

/// Types that are multiplied with activations of 8 bits: what that costs is about 2.5 % of the logits' root
/// mean square in these models of random weights, whatever the type.
#[test]
fn quantized_with_quantized_activations() {
    for name in ["q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q4_k_m", "q5_k", "q6_k", "q8_0"] {
        check(&format!("llama-{name}"), 0.06);
    }
}
