//! Sessions beyond the contract: equal bits, types and sizes of KV, attention windows.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::harness::{self, feed, tokens, worst};
use exsa_core::SeqId;
use exsa_core::backend::{KvType, Model, Session, SessionOptions, ThreadOptions, ThreadTeam};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::gguf::Value;
use std::sync::Arc;
use support::{ARCHITECTURES, MIXTURES, data, edit_of, load, session};

fn model(name: &str) -> Arc<dyn Model> {
    load(data(&format!("{name}.gguf")))
}

/// Logits of every token, from one pass.
fn plain(model: &Arc<dyn Model>, tokens: &[u32]) -> Vec<Vec<f32>> {
    feed(&mut *session(model), 0, 0, tokens, tokens.len())
}

/// Floats are multiplied by our own kernels, whose sums have one order whatever the batch.
#[test]
fn bit_by_bit_with_float_weights() {
    for name in ["llama-f32", "gemma3-f32", "llama-f16", "llama-q5_1"] {
        let model = model(name);
        let tokens = tokens(70, 5);
        let whole = plain(&model, &tokens);
        let mut session = session(&model);
        feed(&mut *session, 7, 0, &tokens[..50], 0);
        for (i, &token) in tokens.iter().enumerate() {
            let mut batch = Batch::new();
            batch.push(Span::tokens(SeqId(7), 50, &tokens[50..51]));
            batch.push(Span::tokens(SeqId(2), i, &[token]).rows(1));
            let row = session.forward(&batch).unwrap().row(0).unwrap().to_vec();
            assert_eq!(row, whole[i], "{name}, token {i}");
            session.truncate(SeqId(7), 50).unwrap();
        }
    }
}

/// Lengths that the payload does not have, within the context and beyond, take no blocks.
#[test]
fn saved_kv_of_another_length() {
    let mut session = session(&model("llama-f32"));
    feed(&mut *session, 0, 0, &tokens(40, 6), 0);
    let mut saved = Vec::new();
    session.save(SeqId(0), &mut saved).unwrap();
    for (at, value) in [(24, 41), (24, 0), (24, u64::MAX), (32, 0), (32, u64::MAX)] {
        let mut other = saved.clone();
        other[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        let result = session.restore(SeqId(1), &mut other.as_slice());
        assert!(matches!(result, Err(KvError::Format(_))), "{value} at {at}: {result:?}");
    }
    assert_eq!(session.restore(SeqId(1), &mut saved.as_slice()).unwrap(), 40);
}

/// KV in 16 or 8 bits rounds keys and values, and little else. In mixtures of experts it may choose another
/// expert, which is much.
#[test]
fn smaller_kv_is_close() {
    for (name, (kv_type, tolerance)) in ARCHITECTURES
        .into_iter()
        .filter(|name| !MIXTURES.contains(name))
        .flat_map(|name| [(KvType::F16, 5e-3), (KvType::Q8_0, 1e-1)].map(|kv_type| (name, kv_type)))
    {
        let (model, tokens) = (model(name), tokens(90, 1));
        let mut session = model.session(&SessionOptions::new().kv_type(kv_type)).unwrap();
        let (rounded, exact) = (feed(&mut *session, 0, 0, &tokens, 90), plain(&model, &tokens));
        let scale = exact.iter().flatten().fold(0.0f32, |m, x| m.max(x.abs()));
        for (a, b) in rounded.iter().zip(&exact) {
            assert!(worst(a, b) < tolerance * scale, "{name} {kv_type:?}: {} of {scale}", worst(a, b));
        }
    }
}

/// Each session has the type that it asked for, and others of the same model have theirs.
#[test]
fn kv_types_of_sessions() {
    let model = model("llama-f32");
    let of = |options: SessionOptions| model.session(&options);
    let sizes = [KvType::F32, KvType::F16, KvType::Q8_0].map(|kv_type| {
        let mut session = of(SessionOptions::new().kv_type(kv_type)).unwrap();
        let row = feed(&mut *session, 0, 0, &tokens(40, 1), 1).remove(0);
        (session.kv_bytes_per_token().unwrap(), row)
    });
    assert!(sizes[0].0 == 2 * sizes[1].0 && sizes[1].0 > sizes[2].0);
    assert!(sizes[0].1 != sizes[1].1 && sizes[1].1 != sizes[2].1);
    let default = of(SessionOptions::new()).unwrap();
    assert_eq!(default.kv_bytes_per_token(), Some(sizes[1].0), "f16 by default");
    for options in [
        SessionOptions::new().kv_type(KvType::Bf16),
        SessionOptions::new().kv_type(KvType::Q4_0),
        SessionOptions::new().kv_types(KvType::F16, KvType::Q8_0),
        SessionOptions::new().kv_types(KvType::F32, KvType::F16),
    ] {
        let error = of(options).map(|_| ()).unwrap_err();
        assert!(matches!(error, LoadError::Option { option: "kv_type", .. }), "{error:?}");
        assert!(error.to_string().contains("f32, f16, q8_0"), "{error}");
    }
}

fn tiny_session(blocks: usize) -> Box<dyn Session> {
    let options = support::exact().kv_tokens(blocks * 32);
    model("llama-f32").session(&options).unwrap()
}

/// Blocks are shared until a sequence writes into them, and the room for that is asked for beforehand.
#[test]
fn copies_on_write_need_room() {
    let mut session = tiny_session(2);
    feed(&mut *session, 0, 0, &tokens(10, 0), 0);
    for seq in 1..4 {
        session.fork(SeqId(0), SeqId(seq), 10).unwrap();
    }
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(1), 10, &[4]).rows(1));
    batch.push(Span::tokens(SeqId(2), 10, &[4]).rows(1));
    assert!(matches!(session.forward(&batch), Err(StepError::KvFull { needed: 2, free: 1 })));
    session.release(SeqId(3));
    session.release(SeqId(0));
    // Two holders left: one copies, the other keeps.
    let logits = session.forward(&batch).unwrap().logits().unwrap();
    assert_eq!(logits.row(0).unwrap(), logits.row(1).unwrap());
    assert!(matches!(session.fork(SeqId(1), SeqId(2), 3), Err(KvError::Sequence { .. })));
    assert!(matches!(session.fork(SeqId(1), SeqId(5), 12), Err(KvError::Length { held: 11, .. })));
}

#[test]
fn sizes_of_sessions() {
    let model = model("llama-f32");
    let options = support::exact();
    let bytes_per_token = 2 * model.info().kv_bytes_per_token;
    let of = |options: SessionOptions| model.session(&options).map(|session| session.capabilities().clone());
    let default = of(options.clone()).unwrap();
    assert_eq!(
        (default.context_tokens_max, default.kv_tokens_max, default.block_tokens),
        (256, 256 * 16, 32)
    );
    let tight = options.clone().kv_bytes(100 * bytes_per_token);
    let tight = of(tight).unwrap();
    assert_eq!((tight.kv_tokens_max, tight.context_tokens_max), (96, 96));
    let refused = [
        options.clone().kv_bytes(31 * bytes_per_token),
        options.clone().kv_tokens(97).kv_bytes(127 * bytes_per_token),
        options.context_tokens(200).kv_bytes(199 * bytes_per_token),
    ];
    for options in refused {
        let result = of(options);
        assert!(matches!(result, Err(LoadError::Memory { what: "the KV cache", .. })), "{result:?}");
    }
}

/// Two layers with windows of `w` tokens see `2 * w - 1` tokens together, and nothing before.
#[test]
fn windows_forget() {
    for window in [1, 5, 32, 40] {
        let edit = edit_of("llama-f32").set("llama.attention.sliding_window", Value::U32(window));
        let model = edit.load(&CandleBackend::new()).unwrap();
        assert_eq!(model.info().n_layer, 2);
        let reach = 2 * window as usize - 1;
        let tokens = tokens(reach + 30, 1);
        let whole = plain(&model, &tokens);
        let mut changed = tokens.clone();
        changed[10] = if changed[10] == 9 { 8 } else { 9 };
        let other = plain(&model, &changed);
        let differs = |row: usize| worst(&whole[row], &other[row]) > 1e-3;
        assert!((0..10).all(|row| whole[row] == other[row]), "a token before the change");
        assert!(differs(10) && differs(10 + reach - 1), "a token that sees it");
        assert!((10 + reach..tokens.len()).all(|row| whole[row] == other[row]), "a token that does not");
        let mut session = session(&model);
        for (i, &token) in tokens.iter().enumerate() {
            assert_eq!(feed(&mut *session, 0, i, &[token], 1)[0], whole[i]);
        }
    }
}

/// Models beside those of [`ARCHITECTURES`], with products of other types.
const OTHER_PRODUCTS: [&str; 12] = [
    "llama-bias-f32",
    "llama-f16",
    "llama-bf16",
    "llama-q4_1",
    "llama-q5_1",
    "llama-q4_0",
    "llama-q5_0",
    "llama-q8_0",
    "llama-q4_k_m",
    "llama-q6_k",
    "qwen3moe-q8_0",
    "gpt-oss-mxfp4",
];

fn with_threads(threads: usize) -> SessionOptions {
    SessionOptions::new().threads(ThreadOptions::compute(threads))
}

/// Feeds `tokens` in chunks of `size` beside a stranger that prefills and decodes in turns; the logits of
/// `tokens`.
fn in_company(session: &mut dyn Session, tokens: &[u32], size: usize) -> Vec<Vec<f32>> {
    let stranger = harness::tokens(tokens.len() + 60, 9);
    let (mut at, mut rows) = (0, Vec::new());
    for (i, chunk) in tokens.chunks(size).enumerate() {
        let len = if i % 2 == 0 { 1 } else { 5 }.min(stranger.len() - at);
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(5), at, &stranger[at..at + len]).rows(i % 3));
        batch.push(Span::tokens(SeqId(2), i * size, chunk).rows(chunk.len()));
        at += len;
        let logits = session.forward(&batch).unwrap().logits().unwrap();
        let first = logits.rows() - chunk.len();
        rows.extend((first..logits.rows()).map(|row| logits.row(row).unwrap().to_vec()));
    }
    rows
}

/// In any batch, with the tokens in any spans, and on any number of threads, a row's logits are the same
/// bits.
#[test]
fn bit_by_bit() {
    for name in ARCHITECTURES.into_iter().chain(OTHER_PRODUCTS) {
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let model = model(name);
            let session = |options: SessionOptions| {
                let session = model.session(&options.kv_type(kv_type)).unwrap();
                assert!(session.capabilities().batch_invariant);
                session
            };
            let tokens = tokens(70, 5);
            let whole = feed(&mut *session(with_threads(1)), 0, 0, &tokens, tokens.len());
            for (threads, size) in [(1, 1), (2, 7), (3, 70), (2, 33)] {
                let rows = in_company(&mut *session(with_threads(threads)), &tokens, size);
                assert!(rows == whole, "{name}, {kv_type:?}, {threads} threads, chunks of {size}");
            }
            let team = ThreadTeam::new(ThreadOptions::compute(2));
            let rows = in_company(&mut *session(SessionOptions::new().team(&team)), &tokens, 7);
            assert!(rows == whole, "{name}, {kv_type:?}, a shared team");
        }
    }
}

/// The same over contexts that threads share among themselves.
#[test]
fn bit_by_bit_over_long_contexts() {
    for name in ["llama-q8_0", "qwen2-f32", "gemma3-f32", "cohere2-f32"] {
        let prefix = name.split(['-', '_']).next().unwrap();
        let model = edit_of(name)
            .set(&format!("{prefix}.context_length"), Value::U32(4096))
            .load(&CandleBackend::new())
            .unwrap();
        let tokens = tokens(1400, 5);
        let run = |threads: usize, size: usize, last: usize| {
            let mut session = model.session(&with_threads(threads).context_tokens(2048)).unwrap();
            for (i, chunk) in tokens[..1390].chunks(size).enumerate() {
                feed(&mut *session, 0, i * size, chunk, 0);
            }
            let mut rows = Vec::new();
            for (i, chunk) in tokens[1390..].chunks(last).enumerate() {
                rows.extend(feed(&mut *session, 0, 1390 + i * last, chunk, chunk.len()));
            }
            rows
        };
        let whole = run(1, 512, 10);
        for (threads, size, last) in [(1, 100, 1), (2, 512, 1), (3, 333, 3), (2, 64, 10)] {
            assert!(run(threads, size, last) == whole, "{name}, {threads} threads, {size}, {last}");
        }
    }
}
