//! Vectors of texts, against a naive implementation of the model, the logits that the same hidden states
//! give, and each other.
#![allow(clippy::unwrap_used, clippy::panic)]

mod encoders;
mod naive;
mod support;

use exsa_conformance::edit::Edit;
use exsa_conformance::harness::{feed, tokens, worst};
use exsa_core::SeqId;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, Pooling, Session, SessionOptions,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{LoadError, StepError};
use exsa_core::gguf::Value;
use exsa_core::{EmbedRequest, Engine, EngineOptions};
use naive::Naive;
use std::sync::Arc;
use support::{data, edit_of, exact, load, session};

fn with(pooling: Pooling) -> SessionOptions {
    exact().pooling(pooling)
}

/// Vectors of `texts`, each in a sequence of its own.
fn embed(session: &mut dyn Session, texts: &[&[u32]]) -> Vec<Vec<f32>> {
    let mut batch = Batch::new();
    texts.iter().enumerate().for_each(|(i, text)| batch.push(Span::tokens(SeqId(i as u32), 0, text)));
    let vectors = session.embed(&batch).unwrap();
    assert_eq!(vectors.len(), texts.len());
    (0..texts.len()).map(|i| vectors.vector(i).unwrap().to_vec()).collect()
}

fn one(model: &Arc<dyn Model>, pooling: Pooling, text: &[u32]) -> Vec<f32> {
    embed(&mut *model.session(&with(pooling)).unwrap(), &[text]).remove(0)
}

#[test]
fn vectors_are_the_pooled_hidden_states_of_a_naive_implementation() {
    let text = tokens(24, 1);
    let states = Naive::new(&edit_of("llama-f32")).hidden_states(&text);
    let mean = |i: usize| states.iter().map(|state| state[i]).sum::<f64>() / states.len() as f64;
    let expected = [
        (Pooling::First, states[0].clone()),
        (Pooling::Last, states[23].clone()),
        (Pooling::Mean, (0..states[0].len()).map(mean).collect()),
    ];
    let model = load(data("llama-f32.gguf"));
    for (pooling, expected) in expected {
        let expected: Vec<f32> = expected.iter().map(|x| *x as f32).collect();
        let scale = expected.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
        let error = worst(&one(&model, pooling, &text), &expected);
        assert!(error < 1e-4 * scale, "{pooling:?}: {error} of {scale}");
    }
}

/// The last token's vector, times the output matrix, is the last token's logits.
#[test]
fn last_gives_the_logits() {
    let text = tokens(30, 1);
    for name in [
        "llama-f32",
        "llama3-f32",
        "qwen2-f32",
        "qwen3-f32",
        "gemma3-f32",
        "phi3-f32",
        "olmo2-f32",
        "starcoder2-f32",
    ] {
        let model = load(data(&format!("{name}.gguf")));
        let vector = one(&model, Pooling::Last, &text);
        let mut edit = edit_of(name);
        let tied = edit.tensors.iter().all(|tensor| tensor.name != "output.weight");
        let matrix = edit.tensor(if tied { "token_embd.weight" } else { "output.weight" }).unwrap();
        let matrix: Vec<f32> =
            matrix.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let dot = |row: &[f32]| row.iter().zip(&vector).map(|(a, b)| a * b).sum::<f32>();
        let logits: Vec<f32> = matrix.chunks_exact(vector.len()).map(dot).collect();
        let expected = feed(&mut *session(&model), 0, 0, &text, 1).remove(0);
        let scale = expected.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
        assert!(worst(&logits, &expected) < 1e-4 * scale, "{name}: {}", worst(&logits, &expected));
    }
}

#[test]
fn the_pooling_of_the_file_is_the_default_and_else_the_mean() {
    let text = tokens(9, 3);
    let of_file = |number: Option<u32>| {
        let edit = edit_of("llama-f32");
        let edit = match number {
            Some(number) => edit.set("llama.pooling_type", Value::U32(number)),
            None => edit,
        };
        open(&edit).unwrap()
    };
    let expected = [
        (None, Pooling::Mean),
        (Some(0), Pooling::Mean),
        (Some(1), Pooling::Mean),
        (Some(2), Pooling::First),
        (Some(3), Pooling::Last),
    ];
    for (number, pooling) in expected {
        let model = of_file(number);
        let mut session = model.session(&exact()).unwrap();
        assert_eq!(session.capabilities().embed, Some(pooling), "{number:?}");
        assert_eq!(embed(&mut *session, &[&text]).remove(0), one(&model, pooling, &text), "{number:?}");
    }
    let unknown = open(&edit_of("llama-f32").set("llama.pooling_type", Value::U32(9))).map(|_| ());
    assert!(matches!(unknown, Err(LoadError::Unsupported { .. })), "{unknown:?}");
    let encoder = open(&edit_of("llama-f32").set("llama.attention.causal", Value::Bool(false))).map(|_| ());
    assert!(matches!(encoder, Err(LoadError::Unsupported { .. })), "{encoder:?}");
}

fn open(edit: &Edit) -> Result<Arc<dyn Model>, LoadError> {
    let options = LoadOptions::new().device("cpu".to_owned());
    exsa_backend_candle::CandleBackend::new().load(&edit.source(), &options, &mut LoadProgress::none())
}

/// Batches of any composition, beside sequences that generate, give the same bits.
#[test]
fn texts_do_not_see_each_other() {
    let model = load(data("qwen3-f32.gguf"));
    let texts = [tokens(30, 1), tokens(1, 2), tokens(200, 3)];
    for pooling in [Pooling::Mean, Pooling::First, Pooling::Last] {
        let alone: Vec<_> = texts.iter().map(|text| one(&model, pooling, text)).collect();
        let mut session = model.session(&with(pooling)).unwrap();
        feed(&mut *session, 9, 0, &tokens(40, 4), 0);
        assert_eq!(embed(&mut *session, &[&texts[0], &texts[1], &texts[2]]), alone, "{pooling:?}");
        let row = feed(&mut *session, 9, 40, &[7], 1);
        let whole = [&tokens(40, 4)[..], &[7]].concat();
        assert_eq!(row, feed(&mut *support::session(&model), 0, 0, &whole, 1), "{pooling:?}");
        // The sequences are empty again.
        feed(&mut *session, 0, 0, &tokens(5, 5), 1);
        assert_eq!(embed(&mut *session, &[]).len(), 0);
    }
}

#[test]
fn wrong_requests_are_refused() {
    let model = load(data("llama-f32.gguf"));
    let rank = model.session(&with(Pooling::Rank)).map(|_| ());
    assert!(matches!(rank, Err(LoadError::Option { option: "pooling", .. })), "{rank:?}");
    let options = with(Pooling::Mean).batch_tokens(64);
    let interrupt = options.interrupt.clone();
    let mut session = model.session(&options).unwrap();
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[1, 2]));
    feed(&mut *session, 0, 0, &[1, 2, 3], 1);
    assert!(matches!(session.embed(&batch), Err(StepError::Position { held: 3, .. })));
    let mut more = Batch::new();
    more.push(Span::tokens(SeqId(0), 3, &[1]));
    assert!(matches!(session.embed(&more), Err(StepError::Sequence { .. })));
    interrupt.raise();
    assert!(matches!(session.embed(&batch), Err(StepError::Interrupted)));
    interrupt.clear();
    session.release(SeqId(0));
    assert_eq!(embed(&mut *session, &[&[1, 2]]).len(), 1);
}

/// The built-in model embeds through the engine, beside answers.
#[test]
fn an_engine_embeds_texts_of_the_built_in_model() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf");
    let engine = Engine::start(load(path.into()), EngineOptions::default()).unwrap();
    let texts = ["A frog sat on a leaf.", "The frog jumped into the water.", "A frog sat on a leaf."];
    let output = engine.embed(EmbedRequest::texts(texts)).unwrap().wait().unwrap();
    let vectors = output.into_vectors().unwrap();
    assert_eq!(vectors.len(), 3);
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);
    let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>();
    assert!(vectors.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-4), "{:?}", length(&vectors[0]));
}
