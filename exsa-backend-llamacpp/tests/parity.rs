//! candle and llama.cpp side by side: two implementations of the same mathematics, by different people. Where
//! they differ, and which of them rounds, is in the documentation of this crate.

#![allow(clippy::unwrap_used)]

mod support;

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_conformance::harness::{argmax, feed, greedy, tokens, worst};
use exsa_conformance::test_data;
use exsa_core::SeqId;
use exsa_core::backend::{InferenceBackend, KvType, Model, ModelSource, Pooling, Session, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::gguf::{Array, GgmlType, Value};
use exsa_core::tokenizer::EncodeOptions;
use exsa_quant::{Mixture, QuantizeOptions, quantize_gguf};
use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use support::{candle_backend, data, edit_of, exact_options, load_with, micro_models, options, session};

/// Mean KL divergence of next-token distributions that is allowed, in nats.
const DIVERGENCE_MAX: f64 = 1e-3;

/// The same of types with a min for each block, for which llama.cpp rounds the sums of activations to 16
/// bits. Random weights make the most of it: there is no token that the model is sure of.
const DIVERGENCE_MINS_MAX: f64 = 2e-3;

/// Logits whose difference may be turned by 16-bit activations, which llama.cpp has with 16-bit weights.
const MARGIN_16_BITS: f32 = 0.05;

/// The same of llama.cpp's GELU, a table in 16 bits.
const MARGIN_GELU: f32 = 0.01;

struct Pair {
    candle: Arc<dyn Model>,
    llamacpp: Arc<dyn Model>,
    /// Options of llama.cpp's sessions; those of candle are exact.
    options: SessionOptions,
}

impl Pair {
    /// Both with as few roundings as possible.
    fn exact(source: &ModelSource) -> Self {
        Self::load(source, &support::exact(), exact_options())
    }

    /// llama.cpp with default options.
    fn with_defaults(source: &ModelSource) -> Self {
        Self::load(source, &LlamaCppBackend::new(), options())
    }

    fn load(source: &ModelSource, llamacpp: &dyn InferenceBackend, options: SessionOptions) -> Self {
        let candle = load_with(&candle_backend(), source);
        Self { candle, llamacpp: load_with(llamacpp, source), options }
    }

    /// A session of candle and one of llama.cpp.
    fn sessions(&self) -> [Box<dyn Session>; 2] {
        [session(&self.candle), self.llamacpp.session(&self.options).unwrap()]
    }

    /// Distributions of both after each of `tokens`.
    fn rows(&self, tokens: &[u32]) -> [Vec<Vec<f32>>; 2] {
        self.sessions().map(|mut session| feed(&mut *session, 0, 0, tokens, tokens.len()))
    }

    /// Along candle's greedy text, llama.cpp chooses the same tokens, but for pairs as close as its rounding.
    fn check_choices(&self, prompt: &[u32], margin_max: f32) {
        let text = [prompt, &greedy(&mut *session(&self.candle), 0, prompt, 64)].concat();
        let [candle, llamacpp] = self.rows(&text[..text.len() - 1]);
        for (row, next) in text.iter().enumerate().skip(prompt.len()) {
            let chosen = argmax(&llamacpp[row - 1]);
            let margin = candle[row - 1][*next as usize] - candle[row - 1][chosen as usize];
            assert!(margin <= margin_max, "token {row}: {chosen}, not {next}, by {margin}");
        }
    }

    fn divergence(&self, tokens: &[u32]) -> f64 {
        let [candle, llamacpp] = self.rows(tokens);
        divergence(&candle, &llamacpp)
    }
}

/// A micro model. That of Phi-3 gets a token which llama.cpp looks up by name in models of that family.
fn micro(name: &str) -> ModelSource {
    if !name.starts_with("phi3") {
        return ModelSource::File(data(&format!("{name}.gguf")));
    }
    let edit = edit_of(name);
    let words =
        edit.metadata.iter().find(|(key, _)| key == "tokenizer.ggml.tokens").map(|(_, value)| value.clone());
    let Some(Value::Array(Array::Str(mut words))) = words else { unreachable!() };
    *words.last_mut().unwrap() = "<|endoftext|>".to_owned();
    let edit = edit.set("tokenizer.ggml.tokens", Value::Array(Array::Str(words)));
    edit.source()
}

/// log softmax of a row.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
    let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
    row.iter().map(|x| f64::from(x - max) - sum.ln()).collect()
}

/// Mean over the rows of the KL divergence of `b`'s distribution from `a`'s, in nats.
fn divergence(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let rows = a.iter().zip(b).map(|(a, b)| {
        let (a, b) = (log_softmax(a), log_softmax(b));
        a.iter().zip(&b).map(|(a, b)| a.exp() * (a - b)).sum::<f64>()
    });
    rows.sum::<f64>() / a.len() as f64
}

/// Vectors of both backends for texts of unequal lengths, by every pooling.
#[test]
fn embeddings_of_f32_models() {
    let texts = [tokens(30, 5), tokens(1, 6), tokens(90, 7)];
    for name in micro_models().iter().filter(|name| name.ends_with("-f32")) {
        let pair = Pair::exact(&micro(name));
        for pooling in [Pooling::Mean, Pooling::First, Pooling::Last] {
            let embed = |model: &Arc<dyn Model>, options: SessionOptions| {
                let mut session = model.session(&options.pooling(pooling)).unwrap();
                let mut batch = Batch::new();
                for (i, text) in texts.iter().enumerate() {
                    batch.push(Span::tokens(SeqId(i as u32), 0, text));
                }
                let vectors = session.embed(&batch).unwrap();
                (0..texts.len()).map(|i| vectors.vector(i).unwrap().to_vec()).collect::<Vec<_>>()
            };
            let candle = embed(&pair.candle, SessionOptions::new().kv_type(KvType::F32));
            let llamacpp = embed(&pair.llamacpp, exact_options());
            for (ours, theirs) in candle.iter().zip(&llamacpp) {
                let scale = theirs.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
                let error = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error < 2e-3 * scale, "{name}, {pooling:?}: {error} of {scale}");
            }
        }
    }
}

/// Largest difference of the logits of both after each of `tokens`, relative to the largest logit.
fn difference(source: &ModelSource, tokens: &[u32]) -> f32 {
    let [candle, llamacpp] = Pair::exact(source).rows(tokens);
    let scale = llamacpp.iter().flatten().fold(0.0f32, |scale, x| scale.max(x.abs()));
    candle.iter().zip(&llamacpp).map(|(a, b)| worst(a, b)).fold(0.0, f32::max) / scale
}

#[test]
fn logits_of_f32_models() {
    let tokens = tokens(120, 8);
    for name in micro_models().iter().filter(|name| name.ends_with("-f32")) {
        // llama.cpp looks GELU up in a table of 16 bits.
        let gelu = ["gemma", "starcoder"].iter().any(|family| name.starts_with(family));
        let difference = difference(&micro(name), &tokens);
        eprintln!("{name}: {difference:.2e}");
        assert!(difference < if gelu { 1e-2 } else { 1e-4 }, "{name}: {difference:e}");
    }
}

/// Layers that the micro models have in one way and other files in another.
#[test]
fn logits_of_variants() {
    let (u, f) = (Value::U32, Value::F32);
    let layers = |layers: &[bool]| Value::Array(Array::Bool(layers.to_vec()));
    for (name, key, value) in [
        ("granite", "granite.rope.scaling.finetuned", Value::Bool(false)),
        ("granite", "granite.attention.scale", f(0.0)),
        ("granite", "granite.residual_scale", f(0.0)),
        ("granite", "granite.embedding_scale", f(0.0)),
        ("glm4", "glm4.rope.dimension_count", u(16)),
        ("command-r", "command-r.logit_scale", f(0.0)),
        ("cohere2", "cohere2.attention.sliding_window_pattern", u(2)),
        ("cohere2", "cohere2.attention.sliding_window_pattern", layers(&[false, true, true, false])),
        ("olmo3", "olmo2.attention.sliding_window_pattern", layers(&[false, false, true, true])),
        ("olmo3", "olmo2.rope.scaling.type", Value::Str("yarn".into())),
        ("exaone4-64", "exaone4.attention.sliding_window_pattern", u(3)),
    ] {
        let source = edit_of(&format!("{name}-f32")).set(key, value.clone()).source();
        let difference = difference(&source, &tokens(120, 8));
        eprintln!("{name} with {key} = {value:?}: {difference:.2e}");
        assert!(difference < 1e-4, "{name} with {key} = {value:?}: {difference:e}");
    }
}

#[test]
fn greedy_tokens_of_f32_models() {
    let prompt = tokens(20, 3);
    for name in micro_models().iter().filter(|name| name.ends_with("-f32")) {
        let pair = Pair::exact(&micro(name));
        if name.starts_with("starcoder2") {
            // Two logits are 2e-4 apart in this text.
            pair.check_choices(&prompt, MARGIN_GELU);
            continue;
        }
        let [candle, llamacpp] = pair.sessions().map(|mut session| greedy(&mut *session, 0, &prompt, 64));
        assert_eq!(candle, llamacpp, "{name}");
    }
}

#[test]
fn greedy_tokens_of_f16_models() {
    Pair::exact(&micro("llama-f16")).check_choices(&tokens(20, 3), MARGIN_16_BITS);
    let Some(path) = test_data::model("exsa-tiny-f16.gguf") else { return };
    let pair = Pair::exact(&ModelSource::File(path));
    let prompt = [pair.candle.tokenizer().special().bos.unwrap()];
    let [candle, llamacpp] = pair.sessions().map(|mut session| greedy(&mut *session, 0, &prompt, 64));
    assert_eq!(candle, llamacpp);
}

#[test]
fn distributions_of_micro_models() {
    let mut failed = Vec::new();
    for name in micro_models() {
        let divergence = Pair::exact(&micro(&name)).divergence(&tokens(120, 1));
        let limit = match name.as_str() {
            "llama-q4_1" | "llama-q5_1" => DIVERGENCE_MINS_MAX,
            _ if name.ends_with("-f32") => 1e-5,
            _ => DIVERGENCE_MAX,
        };
        eprintln!("{name}: {divergence:.2e}");
        if divergence.is_nan() || divergence >= limit {
            failed.push(format!("{name}: {divergence:.2e}"));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// The ids of the beginning of a text that no model saw, after BOS.
fn held_out(model: &dyn Model, bytes: usize) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(test_data::model("heldout.txt")?).unwrap();
    let mut ids = Vec::new();
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    model.tokenizer().encode(&text[..end], &EncodeOptions::default(), &mut ids);
    Some(ids)
}

#[test]
fn distributions_of_trained_models() {
    for name in [
        "exsa-tiny-f32",
        "exsa-tiny-f16",
        "exsa-tiny-q8_0",
        "exsa-tiny-q4_k_m",
        "stories260K-f32",
        "stories260K-q8_0",
    ] {
        let Some(path) = test_data::model(&format!("{name}.gguf")) else { return };
        let pair = Pair::exact(&ModelSource::File(path));
        let Some(text) = held_out(&*pair.candle, 4000) else { return };
        let divergence = pair.divergence(&text[..400]);
        eprintln!("{name}: {divergence:.2e}");
        assert!(divergence < DIVERGENCE_MAX, "{name}: {divergence}");
    }
}

/// The trained model in every mixture, quantized from its f32 weights: an error of a kernel that random
/// weights hide shows here.
#[test]
fn distributions_of_every_mixture() {
    let Some(path) = test_data::model("exsa-tiny-f32.gguf") else { return };
    let mut failed = Vec::new();
    for mixture in Mixture::all() {
        // Of the one-bit types nothing of this model is left, and the smallest mixture wants an importance
        // matrix.
        if matches!(mixture, Mixture::Q1_0 | Mixture::Q2_0 | Mixture::Q2KS) {
            continue;
        }
        let mut source = BufReader::new(File::open(&path).unwrap());
        let mut file = Vec::new();
        let mut options = QuantizeOptions::new(mixture).threads(1);
        if mixture == Mixture::Mxfp4Moe {
            // The type is for experts, which this model has none of.
            options = options.tensor_type("blk.", GgmlType::Mxfp4);
        }
        quantize_gguf(&mut source, &mut file, &options, |_| ControlFlow::Continue(())).unwrap();
        let pair = Pair::exact(&ModelSource::Memory(file.into()));
        let Some(text) = held_out(&*pair.candle, 4000) else { return };
        let divergence = pair.divergence(&text[..200]);
        eprintln!("{}: {divergence:.2e}", mixture.name());
        if divergence.is_nan() || divergence >= DIVERGENCE_MAX {
            failed.push(format!("{}: {divergence:.2e}", mixture.name()));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Cost of the defaults: keys and values in 16 bits, and the fused attention.
#[test]
fn default_options_are_close() {
    let built_in = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let pair = Pair::with_defaults(&ModelSource::File(built_in));
    let Some(text) = held_out(&*pair.candle, 4000) else { return };
    let divergence = pair.divergence(&text[..400]);
    eprintln!("default options: {divergence:.2e}");
    assert!(divergence < DIVERGENCE_MAX, "{divergence}");
}

/// exp of the mean negative log likelihood of a text in windows of 256 tokens, of which the second half
/// counts.
fn perplexity(session: &mut dyn Session, text: &[u32]) -> f64 {
    const WINDOW: usize = 256;
    let (mut sum, mut n) = (0.0, 0);
    for window in text.chunks_exact(WINDOW) {
        let rows = feed(session, 0, 0, window, WINDOW / 2);
        session.release(exsa_core::SeqId(0));
        for (row, next) in rows.iter().zip(&window[WINDOW / 2 + 1..]) {
            sum -= log_softmax(row)[*next as usize];
            n += 1;
        }
    }
    (sum / f64::from(n)).exp()
}

#[test]
fn perplexity_of_held_out_text() {
    for name in ["exsa-tiny-f32", "exsa-tiny-q8_0", "exsa-tiny-q4_k_m"] {
        let Some(path) = test_data::model(&format!("{name}.gguf")) else { return };
        let pair = Pair::with_defaults(&ModelSource::File(path));
        let bytes = if std::env::var_os("EXSA_WHOLE_TEXT").is_some() { usize::MAX } else { 10_000 };
        let Some(text) = held_out(&*pair.candle, bytes) else { return };
        let [candle, llamacpp] = pair.sessions().map(|mut session| perplexity(&mut *session, &text));
        let difference = (llamacpp / candle - 1.0).abs();
        eprintln!(
            "{name}, {} tokens: candle {candle:.4}, llama.cpp {llamacpp:.4}, {difference:.2e}",
            text.len()
        );
        assert!(difference < 5e-3, "{name}: candle {candle}, llama.cpp {llamacpp}");
    }
}
