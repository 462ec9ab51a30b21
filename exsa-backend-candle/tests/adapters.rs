//! Adapters: what they add is what merged weights have, whatever else is in the batch.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/adapter.rs"]
mod adapter;
mod support;

use adapter::{gguf, merged, pairs, source, write_peft};
use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::{Edit, Tensor};
use exsa_conformance::harness::{feed, rows, tokens, worst};
use exsa_conformance::test_data;
use exsa_core::backend::{
    AdapterLimits, InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
    ThreadOptions,
};
use exsa_core::batch::{Batch, Span, SpanAdapter};
use exsa_core::error::{LoadError, StepError};
use exsa_core::gguf::{GgmlType, GgufWriter, Value};
use exsa_core::{AdapterId, SeqId};
use std::sync::Arc;
use support::{ARCHITECTURES, data, edit_of, exact, load};

const ALPHA: f32 = 6.0;

fn model(name: &str) -> Arc<dyn Model> {
    load(data(&format!("{name}.gguf")))
}

fn architecture(name: &str) -> String {
    let Some(Value::Str(architecture)) = edit_of(name).get("general.architecture").cloned() else { panic!() };
    architecture
}

/// A random adapter of rank `rank` for every matrix.
fn random(name: &str, rank: usize, seed: u32) -> GgufWriter {
    gguf(&architecture(name), ALPHA, &pairs(&edit_of(name), rank, seed, |_| true))
}

fn insert(model: &Arc<dyn Model>, adapter: &GgufWriter) -> AdapterId {
    model.load_adapter(&source(adapter), &AdapterLimits::new()).unwrap().id
}

fn on(id: AdapterId, scale: f32) -> SpanAdapter {
    SpanAdapter { id, scale }
}

/// Logits of every token of `tokens` in sequence `seq`, in one pass.
fn with(session: &mut dyn Session, tokens: &[u32], adapters: &[SpanAdapter]) -> Vec<Vec<f32>> {
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, tokens).rows(tokens.len()).adapters(adapters));
    let found = rows(session.forward(&batch).unwrap().logits());
    session.release(SeqId(0));
    found
}

fn largest(rows: &[Vec<f32>]) -> f32 {
    rows.iter().flatten().fold(0.0, |most, x| most.max(x.abs()))
}

/// The largest difference of two lists of rows.
fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    a.iter().zip(b).map(|(a, b)| worst(a, b)).fold(0.0, f32::max)
}

#[test]
fn as_merged_weights() {
    for name in ARCHITECTURES {
        let (base, model, tokens) = (edit_of(name), model(name), tokens(40, 3));
        let list = pairs(&base, 5, 1, |_| true);
        let id = insert(&model, &gguf(&architecture(name), ALPHA, &list));
        let mut session = model.session(&exact()).unwrap();
        let plain = with(&mut *session, &tokens, &[]);
        for scale in [1.0, -0.5] {
            let found = with(&mut *session, &tokens, &[on(id, scale)]);
            let other = merged(&base, scale * ALPHA / 5.0, &list).load(&CandleBackend::new()).unwrap();
            let expected = with(&mut *other.session(&exact()).unwrap(), &tokens, &[]);
            let (off, size) = (difference(&found, &expected), largest(&expected));
            assert!(off < 1e-4 * size, "{name} at {scale}: {off} of {size}");
            assert!(difference(&found, &plain) > 1e-2 * size, "{name}: the adapter changes something");
        }
        assert_eq!(with(&mut *session, &tokens, &[on(id, 0.0)]), plain, "{name} at scale 0");
    }
}

/// Attention and dense layers of mixtures of experts take adapters, experts do not.
#[test]
fn adapters_of_experts_are_refused() {
    let (base, model) = (edit_of("glm4moe-f32"), model("glm4moe-f32"));
    let list = pairs(&base, 4, 1, |name| name.contains("attn_q."));
    for part in ["ffn_gate_inp", "ffn_up_exps", "ffn_down_shexp", "ffn_up"] {
        let mut list = list.clone();
        list[0].weight = format!("blk.1.{part}.weight");
        let error = model.load_adapter(&source(&gguf("glm4moe", 1.0, &list)), &AdapterLimits::new());
        let text = error.unwrap_err().to_string();
        assert!(
            ["mixtures of experts", "not supported", part].iter().all(|word| text.contains(word)),
            "{text}"
        );
    }
    insert(&model, &gguf("glm4moe", 1.0, &pairs(&base, 4, 1, |name| name.starts_with("blk.0."))));
}

/// Two adapters are the sum of their products, in the order of the span.
#[test]
fn several_at_once() {
    let (base, model, tokens) = (edit_of("llama-f32"), model("llama-f32"), tokens(30, 4));
    let (one, two) = (pairs(&base, 3, 1, |_| true), pairs(&base, 20, 2, |name| name.contains("ffn")));
    let ids = [&one, &two].map(|list| insert(&model, &gguf("llama", ALPHA, list)));
    let found = with(&mut *model.session(&exact()).unwrap(), &tokens, &[on(ids[0], 0.7), on(ids[1], 1.5)]);
    let both = merged(&merged(&base, 0.7 * ALPHA / 3.0, &one), 1.5 * ALPHA / 20.0, &two);
    let both = both.load(&CandleBackend::new()).unwrap();
    let expected = with(&mut *both.session(&exact()).unwrap(), &tokens, &[]);
    assert!(difference(&found, &expected) < 1e-4 * largest(&expected));
}

/// The same bits alone and beside other adapters, in prompts, chunks and decodes, on any number of threads.
#[test]
fn bits_do_not_depend_on_the_batch() {
    for name in ["llama-f32", "llama-q4_k_m", "phi3-f32", "gemma3-f32", "cohere2-f32", "starcoder2-f32"] {
        let model = model(name);
        let adapters =
            [(8, 1), (16, 2), (40, 3)].map(|(rank, seed)| insert(&model, &random(name, rank, seed)));
        let sets: [Vec<SpanAdapter>; 5] = [
            vec![on(adapters[0], 1.0)],
            vec![],
            vec![on(adapters[1], 1.0), on(adapters[2], 0.5)],
            vec![on(adapters[0], 2.0)],
            vec![on(adapters[0], 1.0)],
        ];
        let texts: Vec<Vec<u32>> = (0..sets.len()).map(|seq| tokens(24, seq as u32)).collect();
        let one = SessionOptions::new().threads(ThreadOptions::compute(1));
        let alone: Vec<_> = sets
            .iter()
            .zip(&texts)
            .map(|(set, text)| with(&mut *model.session(&one).unwrap(), text, set))
            .collect();
        assert!(alone[0] != alone[3] && alone[0] != alone[4]);
        for threads in 1..=3 {
            let options = SessionOptions::new().threads(ThreadOptions::compute(threads));
            let mut session = model.session(&options).unwrap();
            // Chunks of different lengths, then decodes; some spans without logits.
            for (start, end) in [(0, 7), (7, 20), (20, 21), (21, 22), (22, 23), (23, 24)] {
                let mut batch = Batch::new();
                for (seq, (set, text)) in sets.iter().zip(&texts).enumerate() {
                    let logits = if start == 0 { seq.min(2) } else { end - start };
                    let span = Span::tokens(SeqId(seq as u32), start, &text[start..end]);
                    batch.push(span.rows(logits).adapters(set));
                }
                let mut found = rows(session.forward(&batch).unwrap().logits()).into_iter();
                for (seq, alone) in alone.iter().enumerate() {
                    let logits = if start == 0 { seq.min(2) } else { end - start };
                    for (position, expected) in alone.iter().enumerate().take(end).skip(end - logits) {
                        let row = found.next().unwrap();
                        assert!(row == *expected, "{name}, {threads} threads, {seq} at {position}");
                    }
                }
            }
        }
    }
}

/// The folder that PEFT saves is the same adapter as the GGUF that llama.cpp's converter makes of it.
#[test]
fn folders_of_peft() {
    let folder = std::env::temp_dir().join(format!("exsa-peft-{}", std::process::id()));
    for (name, rslora) in [("llama-f32", false), ("llama3-f32", true), ("qwen2-f32", false)] {
        let (base, model, tokens) = (edit_of(name), model(name), tokens(20, 5));
        let list = pairs(&base, 4, 7, |_| true);
        let architecture = architecture(name);
        let number = |key: &str| match base.get(&format!("{architecture}.attention.{key}")) {
            Some(Value::U32(number)) => *number as usize,
            other => panic!("{other:?}"),
        };
        let heads = |weight: &str| match weight {
            _ if architecture != "llama" => None,
            _ if weight.contains("attn_q") => Some(number("head_count")),
            _ if weight.contains("attn_k") => Some(number("head_count_kv")),
            _ => None,
        };
        let config = format!(
            r#"{{"peft_type": "LORA", "r": 8, "lora_alpha": 6, "use_rslora": {rslora}, "bias": "none",
                "rank_pattern": {{"q_proj": 4, "k_proj": 4, "v_proj": 4, "o_proj": 4, "mlp.gate_proj": 4,
                "up_proj": 4, "down_proj": 4}}, "target_modules": "all-linear"}}"#
        );
        write_peft(&folder, &config, &list, heads);
        let peft = model.load_adapter(&ModelSource::file(&folder), &AdapterLimits::new()).unwrap();
        let alpha = if rslora { ALPHA * 2.0 } else { ALPHA };
        let gguf = model.load_adapter(&source(&gguf(&architecture, alpha, &list)), &AdapterLimits::new());
        let gguf = gguf.unwrap();
        assert_eq!((peft.rank, peft.bytes), (gguf.rank, gguf.bytes));
        assert_ne!(peft.id, gguf.id);
        let mut session = model.session(&exact()).unwrap();
        let of = |session: &mut dyn Session, id| with(session, &tokens, &[on(id, 1.0)]);
        assert_eq!(of(&mut *session, peft.id), of(&mut *session, gguf.id), "{name}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Matrices in every type that files have.
#[test]
fn types_of_matrices() {
    // Its rows are whole blocks.
    let (base, model, tokens) = (edit_of("llama-q4_k_m"), model("llama-q4_k_m"), tokens(20, 6));
    let list = pairs(&base, 32, 7, |_| true);
    let mut session = model.session(&exact()).unwrap();
    for dtype in [GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0] {
        let of = |values: &[f32]| -> Vec<u8> {
            match dtype {
                GgmlType::F16 => values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
                GgmlType::BF16 => {
                    values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
                }
                _ => {
                    let mut bytes = Vec::new();
                    exsa_quant::quantize(dtype, values, 32, None, &mut bytes).unwrap();
                    bytes
                }
            }
        };
        let (mut writer, mut rounded) = (gguf("llama", ALPHA, &[]), list.clone());
        for pair in &mut rounded {
            let (columns, rows, rank) = (pair.columns as u64, pair.rows as u64, pair.rank as u64);
            let (a, b) = (of(&pair.a), of(&pair.b));
            exsa_quant::dequantize(dtype, &a, &mut pair.a).unwrap();
            exsa_quant::dequantize(dtype, &b, &mut pair.b).unwrap();
            writer = writer.tensor(&format!("{}.lora_a", pair.weight), &[columns, rank], dtype, a).tensor(
                &format!("{}.lora_b", pair.weight),
                &[rank, rows],
                dtype,
                b,
            );
        }
        let ids = [insert(&model, &writer), insert(&model, &gguf("llama", ALPHA, &rounded))];
        let [found, expected] = ids.map(|id| with(&mut *session, &tokens, &[on(id, 1.0)]));
        assert!(found == expected, "{dtype:?}: the same bits as its values in f32");
    }
}

/// An adapter of an output with weights of its own.
#[test]
fn adapters_of_the_output() {
    let (base, tokens) = (edit_of("llama-f32"), tokens(20, 6));
    let has_output = base.tensors.iter().any(|tensor| tensor.name == "output.weight");
    let embedding = base.tensors.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap().clone();
    let base = if has_output {
        base
    } else {
        let mut base = base.clone();
        base.tensors.push(Tensor { name: "output.weight".into(), ..embedding.clone() });
        base
    };
    let (columns, rows) = (embedding.shape[0] as usize, embedding.shape[1] as usize);
    let pair = adapter::Pair {
        weight: "output.weight".into(),
        columns,
        rows,
        rank: 2,
        a: adapter::values(2 * columns, 1),
        b: adapter::values(2 * rows, 2),
    };
    let model = base.load(&CandleBackend::new()).unwrap();
    let id = insert(&model, &gguf("llama", ALPHA, std::slice::from_ref(&pair)));
    let mut session = model.session(&exact()).unwrap();
    let found = with(&mut *session, &tokens, &[on(id, 1.0)]);
    let other = merged(&base, ALPHA / 2.0, &[pair]).load(&CandleBackend::new()).unwrap();
    let expected = with(&mut *other.session(&exact()).unwrap(), &tokens, &[]);
    assert!(difference(&found, &expected) < 1e-4 * largest(&expected));
}

#[test]
fn refusals() {
    let (base, model) = (edit_of("llama-f32"), model("llama-f32"));
    let list = pairs(&base, 4, 1, |name| name.contains("attn_q"));
    let refused = |adapter: &GgufWriter, words: &[&str]| {
        let error = model.load_adapter(&source(adapter), &AdapterLimits::new()).unwrap_err();
        assert!(matches!(error, LoadError::Adapter { .. }), "{error:?}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(&gguf("qwen2", 1.0, &list), &["general.architecture is 'qwen2'", "'llama'"]);
    refused(&gguf("llama", f32::NAN, &list), &["adapter.lora.alpha", "finite"]);
    refused(&gguf("llama", 1.0, &[]), &["no tensor"]);
    let changed = |change: &dyn Fn(&mut adapter::Pair)| {
        let mut list = list.clone();
        change(&mut list[0]);
        gguf("llama", 1.0, &list)
    };
    refused(&changed(&|pair| pair.weight = "blk.99.attn_q.weight".into()), &["no tensor blk.99.attn_q"]);
    refused(&changed(&|pair| pair.weight = "blk.0.attn_norm.weight".into()), &["blk.0.attn_norm"]);
    refused(
        &changed(&|pair| pair.weight = "token_embd.weight".into()),
        &["token embedding", "not supported"],
    );
    refused(&changed(&|pair| pair.halve()), &["shapes", "this model needs"]);
    refused(&changed(&|pair| pair.a[3] = f32::NAN), &["A holds values that are not finite"]);
    refused(&changed(&|pair| pair.b[0] = f32::INFINITY), &["B holds values that are not finite"]);
    let too_large = pairs(&base, 100_000, 1, |name| name == "blk.0.attn_q.weight");
    refused(&gguf("llama", 1.0, &too_large), &["rank is 100000", "1 to 4096"]);
    let one = gguf("llama", 1.0, &[]).tensor_f32("blk.0.attn_q.weight.lora_a", &[64, 4], &[0.0; 256]);
    refused(&one, &["there is no blk.0.attn_q.weight.lora_b"]);
    let other = gguf("llama", 1.0, &list).tensor_f32("blk.0.attn_q.bias", &[4], &[0.0; 4]);
    refused(&other, &["blk.0.attn_q.bias", "X.lora_a"]);
    // A model in place of an adapter, and damaged bytes.
    let error = model.load_adapter(&ModelSource::file(data("llama-f32.gguf")), &AdapterLimits::new());
    assert!(error.unwrap_err().to_string().contains("general.type"));
    let whole = gguf("llama", 1.0, &list).to_bytes();
    for len in [0, 7, 100, whole.len() - 1] {
        let cut = ModelSource::Memory(whole[..len].into());
        let error = model.load_adapter(&cut, &AdapterLimits::new()).unwrap_err();
        assert!(matches!(error, LoadError::Adapter { .. }), "{len} bytes: {error:?}");
    }
    // Limits.
    let adapter = source(&gguf("llama", 1.0, &list));
    let error = model.load_adapter(&adapter, &AdapterLimits::new().rank(3)).unwrap_err();
    assert!(error.to_string().contains("rank is 4, but at most 3"), "{error}");
    let bytes = model.load_adapter(&adapter, &AdapterLimits::new()).unwrap().bytes;
    let error = model.load_adapter(&adapter, &AdapterLimits::new().bytes(bytes - 1)).unwrap_err();
    assert!(matches!(error, LoadError::Memory { needed, .. } if needed == bytes), "{error:?}");
}

/// Spans with an adapter that is not there, or is too large for the session, end their sequence alone.
#[test]
fn spans_that_are_refused() {
    let model = model("llama-f32");
    let large = insert(&model, &random("llama-f32", 17, 1));
    let options = exact().adapters(2, 16);
    let mut session = model.session(&options).unwrap();
    let capabilities = session.capabilities();
    assert_eq!(capabilities.span_adapters_max, 2);
    assert!(capabilities.batch_adapter_sets_max >= 16 && capabilities.batch_invariant);
    let mut refused = |adapters: &[SpanAdapter], words: &str| {
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), 0, &[5, 6]).rows(1));
        batch.push(Span::tokens(SeqId(1), 0, &[5, 6]).rows(1).adapters(adapters));
        let error = session.forward(&batch).unwrap_err();
        assert!(matches!(error, StepError::Sequence { seq: SeqId(1), .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        feed(&mut *session, 0, 0, &[5, 6], 1);
        session.release(SeqId(0));
    };
    refused(&[on(large, 1.0)], "rank 17, but the session takes 16");
    refused(&[on(AdapterId(77), 1.0)], "adapter 77 is not loaded");
    refused(&[on(large, 1.0); 3], "3 adapters, but the session takes 2");
    model.unload_adapter(large);
    refused(&[on(large, 1.0)], "is not loaded");
    let none = model.session(&exact().adapters(0, 0)).unwrap();
    assert_eq!(none.capabilities().span_adapters_max, 0);
}

/// The project's own adapter for its own model.
#[test]
fn alice_as_merged_weights() {
    let (Some(base_file), Some(file)) =
        (test_data::model("exsa-tiny-f32.gguf"), test_data::model("exsa-lora-alice.gguf"))
    else {
        return;
    };
    let [base, alice] = [&base_file, &file].map(|path| Edit::of(&std::fs::read(path).unwrap()).unwrap());
    let floats = |data: &[u8]| -> Vec<f32> {
        data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let find = |name: &str| alice.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    let list = alice.tensors.iter().filter_map(|a| {
        let weight = a.name.strip_suffix(".lora_a")?;
        let b = find(&format!("{weight}.lora_b"));
        let (columns, rank, rows) = (a.shape[0] as usize, a.shape[1] as usize, b.shape[1] as usize);
        Some(adapter::Pair {
            weight: weight.into(),
            columns,
            rows,
            rank,
            a: floats(&a.data),
            b: floats(&b.data),
        })
    });
    let list: Vec<_> = list.collect();
    assert_eq!(list.len(), 24);
    let model = load(base_file);
    let info = model.load_adapter(&ModelSource::file(file), &AdapterLimits::new()).unwrap();
    assert_eq!(info.rank, 8);
    let tokens = tokens(100, 8);
    let found = with(&mut *model.session(&exact()).unwrap(), &tokens, &[on(info.id, 1.0)]);
    let other = merged(&base, 2.0, &list);
    let options = LoadOptions::new().device("cpu".to_owned());
    let other = CandleBackend::new()
        .load(&ModelSource::Memory(other.bytes().into()), &options, &mut LoadProgress::none())
        .unwrap();
    let expected = with(&mut *other.session(&exact()).unwrap(), &tokens, &[]);
    let (off, size) = (difference(&found, &expected), largest(&expected));
    assert!(off < 1e-4 * size, "{off} of {size}");
}
