//! Vectors of texts, against the logits that the same hidden states give, and against each other.
#![allow(clippy::unwrap_used)]

mod support;

use exsa_conformance::harness::{feed, tokens, worst};
use exsa_core::SeqId;
use exsa_core::backend::{Model, ModelSource, Pooling, Session, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{LoadError, StepError};
use exsa_core::gguf::{Array, GgmlType, GgufWriter, Value};
use std::sync::Arc;
use support::{data, edit_of, load, load_with, session};

fn with(pooling: Pooling) -> SessionOptions {
    support::exact_options().pooling(pooling)
}

/// Vectors of `texts`, each in a sequence of its own.
fn embed(session: &mut dyn Session, texts: &[&[u32]]) -> Vec<Vec<f32>> {
    let mut batch = Batch::new();
    texts.iter().enumerate().for_each(|(i, text)| batch.push(Span::tokens(SeqId(i as u32), 0, text)));
    let vectors = session.embed(&batch).unwrap();
    assert_eq!(vectors.len(), texts.len());
    (0..texts.len()).map(|i| vectors.vector(i).unwrap().to_vec()).collect()
}

fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let sum = |i: usize| vectors.iter().map(|vector| vector[i]).sum::<f32>() / vectors.len() as f32;
    (0..vectors[0].len()).map(sum).collect()
}

fn llama() -> Arc<dyn Model> {
    load(data("llama-f32.gguf"))
}

/// The last token's vector, times the output matrix, is the last token's logits.
#[test]
fn last_gives_the_logits() {
    let text = tokens(30, 1);
    let model = llama();
    let mut embedder = model.session(&with(Pooling::Last)).unwrap();
    assert_eq!(embedder.capabilities().embed, Some(Pooling::Last));
    let vector = embed(&mut *embedder, &[&text]).remove(0);
    let mut edit = edit_of("llama-f32");
    let head = if edit.tensors.iter().any(|t| t.name == "output.weight") {
        "output.weight"
    } else {
        "token_embd.weight"
    };
    let matrix: Vec<f32> = edit
        .tensor(head)
        .unwrap()
        .data
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let dot = |row: &[f32]| row.iter().zip(&vector).map(|(a, b)| a * b).sum::<f32>();
    let logits: Vec<f32> = matrix.chunks_exact(vector.len()).map(dot).collect();
    let expected = feed(&mut *session(&model), 0, 0, &text, 1).remove(0);
    assert!(worst(&logits, &expected) < 1e-3, "{}", worst(&logits, &expected));
}

#[test]
fn mean_and_first_are_made_of_the_tokens_vectors() {
    let text = tokens(12, 2);
    let model = llama();
    let mut last = model.session(&with(Pooling::Last)).unwrap();
    let prefixes: Vec<&[u32]> = (1..=12).map(|len| &text[..len]).collect();
    let vectors = embed(&mut *last, &prefixes);
    let first = embed(&mut *model.session(&with(Pooling::First)).unwrap(), &[&text]).remove(0);
    assert!(worst(&first, &vectors[0]) < 1e-3);
    let pooled = embed(&mut *model.session(&with(Pooling::Mean)).unwrap(), &[&text]).remove(0);
    assert!(worst(&pooled, &mean(&vectors)) < 1e-3);
}

/// Batches of any composition, beside sequences that generate.
#[test]
fn texts_do_not_see_each_other() {
    let model = llama();
    let texts = [tokens(30, 1), tokens(7, 2), tokens(200, 3)];
    let alone: Vec<_> = texts
        .iter()
        .map(|text| embed(&mut *model.session(&with(Pooling::Mean)).unwrap(), &[text]).remove(0))
        .collect();
    let mut session = model.session(&with(Pooling::Mean)).unwrap();
    feed(&mut *session, 9, 0, &tokens(40, 4), 0);
    let together = embed(&mut *session, &[&texts[0], &texts[1], &texts[2]]);
    for (a, b) in alone.iter().zip(&together) {
        assert!(worst(a, b) < 1e-3);
    }
    let row = feed(&mut *session, 9, 40, &[7], 1);
    let expected = feed(&mut *support::session(&model), 0, 0, &[&tokens(40, 4)[..], &[7]].concat(), 1);
    assert!(worst(&row[0], &expected[0]) < 1e-3);
    // The sequences are empty again, and all of their room is back.
    feed(&mut *session, 0, 0, &tokens(5, 5), 1);
    assert_eq!(embed(&mut *session, &[]).len(), 0);
}

#[test]
fn what_is_refused() {
    let model = llama();
    let mut plain = session(&model);
    assert_eq!(plain.capabilities().embed, None);
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[1, 2]));
    assert!(matches!(plain.embed(&batch), Err(StepError::Unsupported("embed"))));
    let rank = model.session(&with(Pooling::Rank)).map(|_| ());
    assert!(matches!(rank, Err(LoadError::Option { option: "pooling", .. })), "{rank:?}");

    let options = with(Pooling::Mean).batch_tokens(64);
    let interrupt = options.interrupt.clone();
    let mut session = model.session(&options).unwrap();
    feed(&mut *session, 0, 0, &[1, 2, 3], 1);
    assert!(matches!(session.embed(&batch), Err(StepError::Position { held: 3, .. })));
    let mut more = Batch::new();
    more.push(Span::tokens(SeqId(0), 3, &[1]));
    assert!(matches!(session.embed(&more), Err(StepError::Sequence { .. })));
    let mut large = Batch::new();
    large.push(Span::tokens(SeqId(1), 0, &tokens(65, 1)));
    assert!(matches!(session.embed(&large), Err(StepError::BatchTooLarge { .. })));
    interrupt.raise();
    assert!(matches!(session.embed(&batch), Err(StepError::Interrupted)));
    interrupt.clear();
    session.release(SeqId(0));
    assert_eq!(embed(&mut *session, &[&[1, 2]]).len(), 1);
}

const WIDTH: u64 = 32;

/// An encoder of the BERT family with random weights and a classification head.
fn bert(pooling: u32) -> Vec<u8> {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u{2581}a", "\u{2581}b", "\u{2581}cat", "s"];
    let n = words.len() as u64;
    let mut writer = GgufWriter::new();
    for (key, value) in [
        ("general.architecture", Value::Str("bert".into())),
        ("bert.context_length", Value::U32(64)),
        ("bert.embedding_length", Value::U32(WIDTH as u32)),
        ("bert.block_count", Value::U32(2)),
        ("bert.feed_forward_length", Value::U32(64)),
        ("bert.attention.head_count", Value::U32(4)),
        ("bert.attention.layer_norm_epsilon", Value::F32(1e-5)),
        ("bert.attention.causal", Value::Bool(false)),
        ("bert.pooling_type", Value::U32(pooling)),
        ("tokenizer.ggml.model", Value::Str("bert".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::Str(words.map(str::to_owned).to_vec()))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![3, 2, 3, 3, 1, 1, 1, 1]))),
        ("tokenizer.ggml.token_type_count", Value::U32(2)),
        ("tokenizer.ggml.padding_token_id", Value::U32(0)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(1)),
        ("tokenizer.ggml.bos_token_id", Value::U32(2)),
        ("tokenizer.ggml.cls_token_id", Value::U32(2)),
        ("tokenizer.ggml.eos_token_id", Value::U32(3)),
        ("tokenizer.ggml.seperator_token_id", Value::U32(3)),
    ] {
        writer = writer.key(key, value);
    }
    let mut tensors: Vec<(String, Vec<u64>)> = vec![
        ("token_embd.weight".into(), vec![WIDTH, n]),
        ("token_types.weight".into(), vec![WIDTH, 2]),
        ("position_embd.weight".into(), vec![WIDTH, 64]),
        ("token_embd_norm.weight".into(), vec![WIDTH]),
        ("token_embd_norm.bias".into(), vec![WIDTH]),
        ("cls.weight".into(), vec![WIDTH, WIDTH]),
        ("cls.bias".into(), vec![WIDTH]),
        ("cls.output.weight".into(), vec![WIDTH, 1]),
        ("cls.output.bias".into(), vec![1]),
    ];
    for layer in 0..2 {
        for (part, input, output) in [
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, WIDTH),
            ("attn_v", WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_up", WIDTH, 64),
            ("ffn_down", 64, WIDTH),
        ] {
            tensors.push((format!("blk.{layer}.{part}.weight"), vec![input, output]));
            tensors.push((format!("blk.{layer}.{part}.bias"), vec![output]));
        }
        for part in ["attn_output_norm", "layer_output_norm"] {
            tensors.push((format!("blk.{layer}.{part}.weight"), vec![WIDTH]));
            tensors.push((format!("blk.{layer}.{part}.bias"), vec![WIDTH]));
        }
    }
    for (name, shape) in tensors {
        let values = weights(&name, shape.iter().product());
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        writer = writer.tensor(&name, &shape, GgmlType::F32, bytes);
    }
    writer.to_bytes()
}

/// `n` numbers of no meaning, other ones for each name.
fn weights(name: &str, n: u64) -> Vec<f32> {
    let mut state =
        name.bytes().fold(1u64, |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.8
        })
        .collect()
}

fn encoder(pooling: u32) -> Arc<dyn Model> {
    load_with(&support::exact(), &ModelSource::Memory(bert(pooling).into()))
}

#[test]
fn encoders_give_vectors_and_no_logits() {
    let model = encoder(2);
    let mut session = session(&model);
    let capabilities = session.capabilities().clone();
    assert_eq!(capabilities.embed, Some(Pooling::First));
    assert!(!capabilities.fork && !capabilities.truncate && !capabilities.save);
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[2, 4, 3]).rows(1));
    assert!(matches!(session.forward(&batch), Err(StepError::Unsupported("forward"))));
    let texts: [&[u32]; 3] = [&[2, 4, 6, 7, 3], &[2, 5, 3], &[2, 6, 6, 6, 5, 4, 3]];
    let alone: Vec<_> = texts.iter().map(|text| embed(&mut *session, &[text]).remove(0)).collect();
    let together = embed(&mut *session, &texts);
    for (a, b) in alone.iter().zip(&together) {
        assert!(worst(a, b) < 1e-4);
    }
    assert!(worst(&alone[0], &alone[1]) > 1e-4);
    // Over the positions that the model has.
    let mut long = Batch::new();
    long.push(Span::tokens(SeqId(0), 0, &[4; 65]));
    assert!(matches!(session.embed(&long), Err(StepError::Sequence { .. })));
}

/// The head, done by hand on the first token's vector.
#[test]
fn rerankers_rank() {
    let text: &[u32] = &[2, 4, 6, 7, 3, 5, 5, 3];
    let first = embed(&mut *session(&encoder(2)), &[text]).remove(0);
    let ranker = encoder(4);
    let mut session = session(&ranker);
    assert_eq!(session.capabilities().embed, Some(Pooling::Rank));
    let score = embed(&mut *session, &[text]).remove(0);
    let width = WIDTH as usize;
    let (dense, dense_bias) = (weights("cls.weight", WIDTH * WIDTH), weights("cls.bias", WIDTH));
    let (output, output_bias) = (weights("cls.output.weight", WIDTH), weights("cls.output.bias", 1));
    let hidden = (0..width).map(|row| {
        let row_of = &dense[row * width..][..width];
        (row_of.iter().zip(&first).map(|(a, b)| a * b).sum::<f32>() + dense_bias[row]).tanh()
    });
    let expected = hidden.zip(&output).map(|(a, b)| a * b).sum::<f32>() + output_bias[0];
    assert_eq!(score.len(), 1);
    assert!((score[0] - expected).abs() < 1e-3, "{} {expected}", score[0]);
}

/// Vectors and scores of the micro encoders by llama.cpp and by candle. llama.cpp computes GELU by the
/// formula with tanh, from a table in f16; without GELU the two agree to rounding.
#[test]
fn encoders_give_what_candle_gives() {
    let text: Vec<u32> = [2].into_iter().chain((0..30).map(|i| 4 + 7 * i % 52)).chain([3]).collect();
    for (name, tolerance) in [
        ("bert", 3e-3),
        ("bert-direct", 3e-3),
        ("nomic-bert", 1e-4),
        ("jina-bert-v2", 3e-3),
        ("jina-bert-v2-code", 3e-3),
        ("modern-bert", 3e-3),
        ("modern-bert-silu", 1e-4),
        ("gemma-embedding", 3e-3),
    ] {
        let path = data(&format!("encoders/{name}.gguf"));
        let (theirs, ours) = (load(path.clone()), support::candle(path));
        for pooling in [Pooling::Mean, Pooling::First, Pooling::Last, Pooling::Rank] {
            let options = with(pooling);
            let Ok(mut ours) = ours.session(&options) else {
                assert!(pooling == Pooling::Rank && theirs.session(&options).is_err(), "{name} {pooling:?}");
                continue;
            };
            let mut theirs = theirs.session(&options).unwrap();
            let error = worst(&embed(&mut *ours, &[&text])[0], &embed(&mut *theirs, &[&text])[0]);
            assert!(error < tolerance, "{name} {pooling:?}: {error}");
        }
    }
}
