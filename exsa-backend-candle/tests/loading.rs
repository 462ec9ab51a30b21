//! Files that load, and errors for those that do not.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "loading/experts.rs"]
mod experts;
#[path = "loading/hybrids.rs"]
mod hybrids;
mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Edit;
use exsa_conformance::harness::{feed, worst};
use exsa_conformance::test_data;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, Model, ModelSource, SessionOptions, ThreadOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::{Array, GgmlType, Value};
use std::sync::Arc;
use support::{ARCHITECTURES, data, edit_of, load, session};

fn refuse(edit: &Edit) -> LoadError {
    match edit.load(&CandleBackend::new()) {
        Ok(_) => panic!("it loads"),
        Err(error) => error,
    }
}

/// Asserts that the error's text has all of `words`.
fn says(error: &LoadError, words: &[&str]) {
    let text = error.to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "'{text}' does not say '{word}'"));
}

fn logits(model: &Arc<dyn Model>) -> Vec<Vec<f32>> {
    feed(&mut *session(model), 0, 0, &[1, 50, 300, 7, 7, 8], 6)
}

#[test]
fn sources_give_the_same_model() {
    let path = data("llama-q5_0.gguf");
    let expected = logits(&load(path.clone()));
    let bytes = std::fs::read(path).unwrap();
    let load =
        |source| CandleBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::none());
    assert_eq!(logits(&load(ModelSource::Memory(bytes.clone().into())).unwrap()), expected);
    for shift in [0, 1, 2, 16] {
        let leaked: &'static [u8] = Vec::leak([&vec![0; shift], &bytes[..]].concat());
        assert_eq!(logits(&load(ModelSource::Embedded(&leaked[shift..])).unwrap()), expected, "{shift}");
    }
}

#[test]
fn token_ids_outside_the_vocabulary_count_as_absent() {
    let expected = logits(&edit_of("llama-f32").load(&CandleBackend::new()).unwrap());
    for role in ["bos", "eos", "unknown", "padding", "eot"] {
        let key = format!("tokenizer.ggml.{role}_token_id");
        for value in [Value::U32(512), Value::U32(u32::MAX), Value::I32(-1)] {
            let model = edit_of("llama-f32").set(&key, value).load(&CandleBackend::new()).unwrap();
            assert_eq!(logits(&model), expected, "{key}");
        }
    }
}

#[test]
fn files_that_hold_no_model_are_told_from_one() {
    let inspect = |source: &ModelSource| CandleBackend::new().inspect(source).unwrap_err();
    let adapter = edit_of("llama-f32").set("general.type", Value::Str("adapter".into()));
    says(&refuse(&adapter), &["an adapter, not a model", "beside it"]);
    says(&inspect(&adapter.source()), &["an adapter, not a model"]);
    let folder = data("");
    let source = ModelSource::file(&folder);
    let loaded = CandleBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::none());
    for error in [loaded.err().unwrap(), inspect(&source)] {
        assert!(matches!(error, LoadError::Folder { .. }), "{error:?}");
        says(&error, &[&folder.display().to_string(), "is a folder", "-f32.gguf"]);
    }
    let Some(lora) = test_data::model("exsa-lora-alice.gguf") else { return };
    says(&inspect(&ModelSource::file(lora)), &["an adapter, not a model"]);
}

#[test]
fn inspect_tells_without_loading() {
    let info = CandleBackend::new().inspect(&ModelSource::file(data("gemma3-f32.gguf"))).unwrap();
    assert_eq!((info.architecture.as_str(), info.n_ctx, info.n_vocab), ("gemma3", 256, 512));
    let model = load(data("gemma3-f32.gguf"));
    assert_eq!(model.info(), &info);
    assert_eq!(model.tokenizer().n_vocab(), 512);
}

#[test]
fn the_cpu_is_a_device() {
    assert!(CandleBackend::new().devices().iter().any(|device| device.name == "cpu"));
}

#[test]
fn unknown_architecture() {
    let edit = edit_of("llama-f32").set("general.architecture", Value::Str("mamba".into()));
    says(&refuse(&edit), &["mamba", "llama, qwen2", "phi3", "starcoder2", "llama.cpp backend"]);
    let moe = edit_of("qwen2-f32").set("qwen2.expert_count", Value::U32(8));
    says(&refuse(&moe), &["experts"]);
}

#[test]
fn biases_and_output_are_optional() {
    for name in ARCHITECTURES.into_iter().chain(["llama-bias-f32"]) {
        let edit = edit_of(name);
        for tensor in &edit.tensors {
            let without = edit.clone().without_tensor(&tensor.name);
            let bias = tensor.name.ends_with(".bias") && !tensor.name.ends_with("norm.bias");
            // Some families cannot do without the bias that helps to choose experts.
            let required = ["glm4moe-f32", "lfm2moe-f32"].contains(&name);
            let bias = bias && !(required && tensor.name.ends_with("exp_probs_b.bias"));
            // The bias of decays is no projection's.
            let bias = bias && !tensor.name.ends_with("ssm_dt.bias");
            if ["output.weight", "rope_freqs.weight"].contains(&tensor.name.as_str()) || bias {
                without.load(&CandleBackend::new()).unwrap();
            } else {
                says(&refuse(&without), &[&tensor.name, "missing"]);
            }
        }
    }
}

#[test]
fn tensors_that_nobody_knows() {
    let edit = edit_of("llama-f32").add_f32("blk.0.ffn_gate_inp.weight", &[2], &[0.0; 2]);
    says(&refuse(&edit), &["blk.0.ffn_gate_inp.weight", "no such tensor"]);
}

#[test]
fn types_that_are_not_supported() {
    for (dtype, name) in [(GgmlType::I32, "I32"), (GgmlType::Q8_1, "Q8_1")] {
        let mut edit = edit_of("llama-q4_0");
        let tensor = edit.tensor("blk.0.attn_q.weight").unwrap();
        tensor.dtype = dtype;
        let blocks = tensor.shape.iter().product::<u64>() / dtype.block_len();
        tensor.data = vec![0; (blocks * dtype.block_bytes()) as usize];
        says(&refuse(&edit), &["blk.0.attn_q.weight", name, "Q4_K"]);
    }
}

#[test]
fn hyperparameters_out_of_range() {
    let u = Value::U32;
    let f = Value::F32;
    let cases = [
        ("llama.block_count", u(0)),
        ("llama.block_count", u(u32::MAX)),
        ("llama.block_count", Value::U64(u64::MAX)),
        ("llama.block_count", Value::I32(-1)),
        ("llama.block_count", f(2.0)),
        ("llama.embedding_length", u(0)),
        ("llama.embedding_length", u(1 << 31)),
        ("llama.attention.head_count", u(0)),
        ("llama.attention.head_count", u(5)),
        ("llama.attention.head_count", u(1 << 30)),
        ("llama.attention.head_count", Value::Array(Array::U32(vec![4, 2]))),
        ("llama.attention.head_count_kv", u(0)),
        ("llama.attention.head_count_kv", u(3)),
        ("llama.attention.head_count_kv", u(1 << 20)),
        ("llama.attention.key_length", u(0)),
        ("llama.attention.key_length", u(7)),
        ("llama.attention.key_length", u(1 << 20)),
        ("llama.attention.value_length", u(8)),
        ("llama.feed_forward_length", u(0)),
        ("llama.feed_forward_length", u(u32::MAX)),
        ("llama.context_length", u(0)),
        ("llama.context_length", Value::U64(1 << 40)),
        ("llama.rope.dimension_count", u(0)),
        ("llama.rope.dimension_count", u(3)),
        ("llama.rope.dimension_count", u(1 << 12)),
        ("llama.rope.freq_base", f(0.0)),
        ("llama.rope.freq_base", f(f32::INFINITY)),
        ("llama.rope.freq_base", f(f32::NAN)),
        ("llama.rope.freq_base", f(-1e4)),
        ("llama.attention.layer_norm_rms_epsilon", f(-1.0)),
        ("llama.attention.layer_norm_rms_epsilon", f(f32::NAN)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Str("1e-5".into())),
        ("llama.rope.scaling.type", Value::Str("spiral".into())),
        ("llama.rope.scaling.factor", f(-2.0)),
        ("llama.rope.scaling.attn_factor", f(0.0)),
        ("llama.rope.scaling.original_context_length", u(0)),
    ];
    for (key, value) in cases {
        let error = refuse(&edit_of("llama-f32").set(key, value.clone()));
        // Which of two sizes is wrong cannot always be known: then a tensor does not fit.
        assert!(
            matches!(error, LoadError::Unsupported { .. } | LoadError::Gguf(_) | LoadError::Tensor { .. }),
            "{key} = {value:?}: {error}"
        );
        if !matches!(error, LoadError::Tensor { .. }) {
            says(&error, &[key]);
        }
    }
    for key in [
        "llama.block_count",
        "llama.embedding_length",
        "llama.attention.head_count",
        "llama.feed_forward_length",
        "llama.context_length",
        "llama.attention.layer_norm_rms_epsilon",
    ] {
        says(&refuse(&edit_of("llama-f32").without(key)), &[key, "missing"]);
    }
    for (key, value) in [
        ("gemma2.attn_logit_softcapping", f(-1.0)),
        ("gemma2.final_logit_softcapping", f(f32::NAN)),
        ("gemma2.attention.sliding_window", Value::U64(u64::MAX)),
        ("gemma2.attention.sliding_window_pattern", u(0)),
    ] {
        says(&refuse(&edit_of("gemma2-f32").set(key, value)), &[key]);
    }
}

#[test]
fn parts_of_architectures_out_of_range() {
    let (u, f) = (Value::U32, Value::F32);
    let sections = Value::Array(Array::I32(vec![2, 3, 3, 0]));
    for (name, key, values) in [
        ("granite", "logit_scale", vec![f(0.0), f(-1.0), f(f32::NAN), f(f32::INFINITY), f(1e30)]),
        ("granite", "embedding_scale", vec![f(-1.0), f(f32::NAN), f(1e30)]),
        ("granite", "attention.scale", vec![f(-1.0), f(f32::NAN), f(1e-30)]),
        ("granite", "residual_scale", vec![f(-1.0), f(f32::INFINITY), Value::Str("0.2".into())]),
        ("granite", "rope.scaling.finetuned", vec![u(1)]),
        ("granite", "expert_count", vec![u(8)]),
        ("glm4", "nextn_predict_layers", vec![u(1)]),
        ("glm4", "rope.dimension_sections", vec![sections]),
        ("command-r", "block_count", vec![u(64), u(80)]),
        ("command-r", "logit_scale", vec![f(-1.0), f(f32::NAN)]),
        ("command-r", "attention.layer_norm_epsilon", vec![f(-1.0), f(f32::NAN)]),
        ("cohere2", "attention.sliding_window", vec![u(0), Value::U64(u64::MAX)]),
        ("cohere2", "attention.sliding_window_pattern", vec![u(0), Value::Array(Array::Bool(vec![true; 3]))]),
        ("cohere2", "attention.sliding_window_pattern", vec![Value::Array(Array::U32(vec![1; 4]))]),
        ("starcoder2", "attention.layer_norm_epsilon", vec![f(2.0)]),
    ] {
        for value in values {
            let (file, key) = (format!("{name}-f32"), format!("{name}.{key}"));
            says(&refuse(&edit_of(&file).set(&key, value)), &[&key]);
        }
    }
    for (name, key) in [
        ("granite", "logit_scale"),
        ("command-r", "attention.layer_norm_epsilon"),
        ("cohere2", "attention.sliding_window"),
    ] {
        let (file, key) = (format!("{name}-f32"), format!("{name}.{key}"));
        says(&refuse(&edit_of(&file).without(&key)), &[&key]);
    }
}

/// Norms of other shapes than their architecture has, and tensors that only others have.
#[test]
fn tensors_of_other_architectures() {
    let mut edit = edit_of("olmo2-f32");
    let norm = edit.tensor("blk.1.attn_k_norm.weight").unwrap();
    norm.shape = vec![8];
    norm.data.truncate(32);
    says(&refuse(&edit), &["blk.1.attn_k_norm.weight", "[8]", "[16]"]);
    for (name, tensor) in [
        ("olmo2-f32", "blk.0.attn_norm.weight"),
        ("cohere2-f32", "blk.0.ffn_norm.weight"),
        ("cohere2-f32", "output_norm.bias"),
        ("command-r-f32", "blk.0.attn_q_norm.weight"),
        ("starcoder2-f32", "blk.0.ffn_gate.weight"),
        ("granite-f32", "blk.0.post_ffw_norm.weight"),
    ] {
        let edit = edit_of(name).add_f32(tensor, &[4], &[1.0; 4]);
        says(&refuse(&edit), &[tensor, "no such tensor"]);
    }
}

/// Factors of 0 stand for none, and those that are there count.
#[test]
fn factors_in_the_metadata() {
    let with = |name: &str, key: &str, value: Option<f32>| {
        let edit = edit_of(&format!("{name}-f32"));
        let key = format!("{name}.{key}");
        let edit = match value {
            Some(value) => edit.set(&key, Value::F32(value)),
            None => edit.without(&key),
        };
        logits(&edit.load(&CandleBackend::new()).unwrap())
    };
    for (name, key, neutral) in [
        ("granite", "embedding_scale", 1.0),
        ("granite", "residual_scale", 1.0),
        ("granite", "attention.scale", 0.25),
        ("command-r", "logit_scale", 1.0),
    ] {
        let absent = with(name, key, None);
        assert_eq!(with(name, key, Some(0.0)), absent, "{key}");
        assert_eq!(with(name, key, Some(neutral)), absent, "{key}");
        assert_ne!(with(name, key, Some(2.0)), absent, "{key}");
    }
    // Powers of 2 are exact.
    let (one, half) = (with("granite", "logit_scale", Some(1.0)), with("granite", "logit_scale", Some(2.0)));
    assert!(one.iter().flatten().zip(half.iter().flatten()).all(|(one, half)| *one == 2.0 * half));
    let double = with("command-r", "logit_scale", Some(2.0));
    let plain = with("command-r", "logit_scale", Some(1.0));
    assert!(
        double.iter().flatten().zip(plain.iter().flatten()).all(|(double, plain)| *double == 2.0 * plain)
    );
}

/// A pattern of windows as a list of layers is that of the period.
#[test]
fn windows_by_period_and_by_list() {
    let tokens: Vec<u32> = (0..80).map(|i| 3 + i * 37 % 500).collect();
    let with = |value: Value| {
        let edit = edit_of("cohere2-f32").set("cohere2.attention.sliding_window_pattern", value);
        let model = edit.load(&CandleBackend::new()).unwrap();
        feed(&mut *session(&model), 0, 0, &tokens, 80)
    };
    let list = |layers: [bool; 4]| with(Value::Array(Array::Bool(layers.to_vec())));
    assert_eq!(list([true, true, true, false]), with(Value::U32(4)));
    assert_eq!(list([true, false, true, false]), with(Value::U32(2)));
    assert_ne!(with(Value::U32(2)), with(Value::U32(4)));
}

/// More layers than the file has, by any number, end at the first that is missing.
#[test]
fn layers_that_are_not_there() {
    let edit = edit_of("llama-f32").set("llama.block_count", Value::U32(1024));
    says(&refuse(&edit), &["blk.", "missing"]);
    let fewer = edit_of("llama-f32").set("llama.block_count", Value::U32(1));
    says(&refuse(&fewer), &["blk.1.", "no such tensor"]);
}

#[test]
fn vocabulary_larger_than_the_embeddings() {
    let mut edit = edit_of("llama-f32");
    let table = edit.tensor("token_embd.weight").unwrap();
    let row = table.data.len() / 512;
    table.shape[1] = 500;
    table.data.truncate(500 * row);
    says(&refuse(&edit), &["token_embd.weight", "500", "512"]);
}

#[test]
fn embeddings_to_spare() {
    let mut edit = edit_of("llama-f32").without_tensor("output.weight");
    let expected = logits(&edit.load(&CandleBackend::new()).unwrap());
    let table = edit.tensor("token_embd.weight").unwrap();
    let row = table.data.len() / 512;
    table.shape[1] = 520;
    table.data.resize(520 * row, 0);
    let model = edit.load(&CandleBackend::new()).unwrap();
    assert_eq!(model.info().n_vocab, 520);
    for (row, expected) in logits(&model).iter().zip(&expected) {
        assert_eq!(row.len(), 520);
        assert!(worst(&row[..512], expected) < 1e-5);
    }
}

#[test]
fn rope_divisors() {
    let plain = logits(&edit_of("llama-f32").load(&CandleBackend::new()).unwrap());
    let pairs = {
        let edit = edit_of("llama3-f32");
        edit.tensors.iter().find(|tensor| tensor.name == "rope_freqs.weight").unwrap().shape[0]
    };
    let ones = vec![1.0; pairs as usize];
    let add = |values: &[f32]| edit_of("llama-f32").add_f32("rope_freqs.weight", &[pairs], values);
    assert_eq!(logits(&add(&ones).load(&CandleBackend::new()).unwrap()), plain);
    assert_ne!(logits(&add(&vec![2.0; ones.len()]).load(&CandleBackend::new()).unwrap()), plain);
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let mut values = ones.clone();
        values[1] = bad;
        says(&refuse(&add(&values)), &["rope_freqs.weight"]);
    }
    let long = edit_of("llama-f32").set("llama.rope.scaling.type", Value::Str("longrope".into()));
    says(&refuse(&long), &["rope_factors_short.weight", "missing"]);
    let half = long.add_f32("rope_factors_short.weight", &[pairs], &ones);
    says(&refuse(&half), &["rope_factors_long.weight", "missing"]);
    let both = half.add_f32("rope_factors_long.weight", &[pairs], &vec![2.0; ones.len()]);
    // The context of 256 is the original one, unless the file says otherwise.
    assert_eq!(logits(&both.load(&CandleBackend::new()).unwrap()), plain);
    let short = both.set("llama.rope.scaling.original_context_length", Value::U32(64));
    assert_eq!(
        logits(&short.load(&CandleBackend::new()).unwrap()),
        logits(&add(&vec![2.0; ones.len()]).load(&CandleBackend::new()).unwrap())
    );
}

#[test]
fn linear_and_yarn_scaling() {
    let scaled = |kind: &str, factor: f32| {
        let edit = edit_of("llama-f32").set("llama.rope.scaling.type", Value::Str(kind.into()));
        logits(
            &edit.set("llama.rope.scaling.factor", Value::F32(factor)).load(&CandleBackend::new()).unwrap(),
        )
    };
    let plain = logits(&edit_of("llama-f32").load(&CandleBackend::new()).unwrap());
    assert_eq!(scaled("none", 4.0), plain);
    assert_eq!(scaled("linear", 1.0), plain);
    assert_eq!(scaled("yarn", 1.0), plain);
    assert_ne!(scaled("linear", 4.0), plain);
    assert_ne!(scaled("yarn", 4.0), plain);
    let old = edit_of("llama-f32").set("llama.rope.scale_linear", Value::F32(4.0));
    assert_eq!(logits(&old.load(&CandleBackend::new()).unwrap()), scaled("linear", 4.0));
}

#[test]
fn estimates_refuse_what_loading_and_sessions_refuse() {
    let estimate = |source: &ModelSource, options: &SessionOptions| {
        CandleBackend::new().estimate(source, &LoadOptions::new(), options)
    };
    let source = ModelSource::file(data("llama-f32.gguf"));
    let refused = |options: SessionOptions| estimate(&source, &options).unwrap_err();
    let memory = refused(SessionOptions::new().kv_tokens(1 << 40));
    assert!(matches!(memory, LoadError::Memory { what: "the KV cache", .. }), "{memory}");
    for (options, option) in [
        (SessionOptions::new().sequences(0), "sequences_max"),
        (SessionOptions::new().batch_tokens(usize::MAX), "batch_tokens_max"),
        (SessionOptions::new().kv_type(KvType::Q4_0), "kv_type"),
        (SessionOptions::new().threads(ThreadOptions::compute(1 << 20)), "threads.compute"),
    ] {
        let error = refused(options);
        assert!(matches!(error, LoadError::Option { option: named, .. } if named == option), "{error}");
    }
    let load = LoadOptions::new().device("abacus");
    let error = CandleBackend::new().estimate(&source, &load, &SessionOptions::new()).unwrap_err();
    assert!(matches!(error, LoadError::Option { option: "device", .. }), "{error}");
    let missing = estimate(&ModelSource::file("/nowhere/at-all.gguf"), &SessionOptions::new());
    assert!(matches!(missing, Err(LoadError::Io { .. })));
    let mut edit = edit_of("llama-q4_0");
    let tensor = edit.tensor("blk.0.attn_q.weight").unwrap();
    tensor.dtype = GgmlType::Q8_1;
    tensor.data = vec![0; tensor.shape.iter().product::<u64>() as usize / 32 * 36];
    let error = estimate(&edit.source(), &SessionOptions::new()).unwrap_err();
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
    // Weights of one session, KV of two.
    let more = |tokens: usize| estimate(&source, &SessionOptions::new().kv_tokens(tokens)).unwrap();
    let (small, large) = (more(64), more(640));
    assert_eq!((small.weights, 10 * small.kv), (large.weights, large.kv));
    assert!(small.scratch <= large.scratch);
}
