//! A session's contract: however tokens are cut, batched, forked, cut back or saved, the logits are those of the plain run.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_core::SeqId;
use exsa_core::backend::{KvType, Model, Session, SessionOptions, ThreadOptions, ThreadTeam};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::gguf::Value;
use std::sync::Arc;
use support::edit::Edit;
use support::{data, feed, load, session, worst};

/// One model of each architecture, gemma with windows of 32 tokens.
const MODELS: [&str; 7] =
    ["llama-f32", "llama3-f32", "qwen2-f32", "qwen3-f32", "gemma2-f32", "gemma3-f32", "phi3-f32"];

const TOLERANCE: f32 = 1e-4;

fn model(name: &str) -> Arc<dyn Model> {
    load(data(&format!("{name}.gguf")))
}

/// `n` tokens of no meaning.
fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|i| 3 + (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) % 500).collect()
}

fn assert_close(a: &[Vec<f32>], b: &[Vec<f32>], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (row, (a, b)) in a.iter().zip(b).enumerate() {
        let worst = worst(a, b);
        assert!(worst < TOLERANCE, "{what}, row {row}: {worst}");
    }
}

/// Logits of every token, from one pass.
fn plain(model: &Arc<dyn Model>, tokens: &[u32]) -> Vec<Vec<f32>> {
    feed(&mut *session(model), 0, 0, tokens, tokens.len())
}

#[test]
fn chunks_and_single_tokens() {
    for name in MODELS {
        let model = model(name);
        let tokens = tokens(90, 1);
        let whole = plain(&model, &tokens);
        for size in [1, 7, 32, 33, 64] {
            let mut session = session(&model);
            let mut rows = Vec::new();
            for (i, chunk) in tokens.chunks(size).enumerate() {
                rows.extend(feed(&mut *session, 3, i * size, chunk, chunk.len()));
            }
            assert_close(&rows, &whole, &format!("{name} in chunks of {size}"));
        }
    }
}

#[test]
fn strangers_in_the_batch() {
    for name in MODELS {
        let model = model(name);
        let all: Vec<Vec<u32>> = (0..5).map(|i| tokens(40 + 9 * i, i as u32)).collect();
        let alone: Vec<_> = all.iter().map(|tokens| plain(&model, tokens)).collect();
        let mut session = session(&model);
        let mut rows = vec![Vec::new(); all.len()];
        let mut at = vec![0; all.len()];
        let mut step = 0;
        while at.iter().zip(&all).any(|(at, tokens)| *at < tokens.len()) {
            let mut batch = Batch::new();
            let mut owners = Vec::new();
            for (i, tokens) in all.iter().enumerate() {
                // Prefills, decodes and absences take turns.
                let len = ((step + i) % 3) * ((step * 5 + i) % 13 + 1);
                let part = &tokens[at[i]..tokens.len().min(at[i] + len)];
                batch.push(Span::tokens(SeqId(i as u32), at[i], part).rows(part.len()));
                owners.extend(std::iter::repeat_n(i, part.len()));
                at[i] += part.len();
            }
            step += 1;
            let logits = session.forward(&batch).unwrap().logits().unwrap();
            assert_eq!(logits.rows(), owners.len());
            for (row, owner) in owners.into_iter().enumerate() {
                rows[owner].push(logits.row(row).unwrap().to_vec());
            }
        }
        for (i, (rows, alone)) in rows.iter().zip(&alone).enumerate() {
            assert_close(rows, alone, &format!("{name}, sequence {i}"));
        }
    }
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

#[test]
fn only_the_rows_asked_for() {
    for name in MODELS {
        let model = model(name);
        let tokens = tokens(20, 2);
        let whole = plain(&model, &tokens);
        let mut session = session(&model);
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), 0, &tokens));
        batch.push(Span::tokens(SeqId(1), 0, &tokens).rows(3));
        batch.push(Span::tokens(SeqId(2), 0, &tokens[..5]).rows(1));
        let logits = session.forward(&batch).unwrap().logits().unwrap();
        let rows: Vec<_> = (0..logits.rows()).map(|row| logits.row(row).unwrap().to_vec()).collect();
        let expected = [&whole[17..], &whole[4..5]].concat();
        assert_close(&rows, &expected, name);
        // The sequence without rows holds its tokens all the same.
        assert_close(
            &feed(&mut *session, 0, 20, &tokens[..1], 1),
            &feed(&mut *session, 1, 20, &tokens[..1], 1),
            name,
        );
        let empty = session.forward(&Batch::new()).unwrap().logits().unwrap();
        assert_eq!((empty.rows(), empty.n_vocab()), (0, 512));
    }
}

#[test]
fn fork_then_diverge() {
    for name in MODELS {
        let model = model(name);
        for shared in [1, 31, 32, 45, 64] {
            let prefix = tokens(64, 3);
            let (left, right) = (tokens(20, 11), tokens(23, 12));
            let mut session = session(&model);
            feed(&mut *session, 0, 0, &prefix, 0);
            session.fork(SeqId(0), SeqId(1), shared).unwrap();
            session.fork(SeqId(1), SeqId(2), shared).unwrap();
            // All write into what may be a shared block, in one batch.
            let mut batch = Batch::new();
            batch.push(Span::tokens(SeqId(0), 64, &left).rows(left.len()));
            batch.push(Span::tokens(SeqId(1), shared, &left).rows(left.len()));
            batch.push(Span::tokens(SeqId(2), shared, &right).rows(right.len()));
            let logits = session.forward(&batch).unwrap().logits().unwrap();
            let rows: Vec<_> = (0..logits.rows()).map(|row| logits.row(row).unwrap().to_vec()).collect();
            let expected =
                |len: usize, rest: &[u32]| plain(&model, &[&prefix[..len], rest].concat())[len..].to_vec();
            let expected = [expected(64, &left), expected(shared, &left), expected(shared, &right)].concat();
            assert_close(&rows, &expected, &format!("{name}, {shared} tokens shared"));
            // The prefix outlives the sequence that computed it.
            session.release(SeqId(0));
            let whole = plain(&model, &[&prefix[..shared], &right, &left[..1]].concat());
            let row = feed(&mut *session, 2, shared + right.len(), &left[..1], 1);
            assert_close(&row, &whole[whole.len() - 1..], name);
        }
    }
}

#[test]
fn truncate_then_go_on() {
    for name in MODELS {
        let model = model(name);
        let kept = tokens(50, 4);
        for len in [0, 1, 31, 32, 33, 50] {
            let mut session = session(&model);
            feed(&mut *session, 0, 0, &kept, 0);
            feed(&mut *session, 0, 50, &tokens(40, 8), 1);
            session.truncate(SeqId(0), len).unwrap();
            let rest = tokens(10, 9);
            let rows = feed(&mut *session, 0, len, &rest, 10);
            let expected = plain(&model, &[&kept[..len], &rest].concat());
            assert_close(&rows, &expected[len..], &format!("{name} cut to {len}"));
        }
    }
}

#[test]
fn save_and_restore() {
    for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
        for name in ["llama-f32", "gemma3-f32"] {
            let model = model(name);
            let options = SessionOptions::new().kv_type(kv_type);
            let prefix = tokens(77, 6);
            let mut session = model.session(&options).unwrap();
            feed(&mut *session, 0, 0, &prefix, 0);
            let mut saved = Vec::new();
            session.save(SeqId(0), &mut saved).unwrap();
            let expected = feed(&mut *session, 0, 77, &tokens(5, 1), 5);
            let mut other = model.session(&options).unwrap();
            feed(&mut *other, 4, 0, &tokens(40, 2), 0);
            assert_eq!(other.restore(SeqId(1), &mut saved.as_slice()).unwrap(), 77);
            assert_eq!(feed(&mut *other, 1, 77, &tokens(5, 1), 5), expected, "{name}");
            // An empty sequence can be saved too.
            let mut empty = Vec::new();
            session.save(SeqId(9), &mut empty).unwrap();
            assert_eq!(other.restore(SeqId(2), &mut empty.as_slice()).unwrap(), 0);
        }
    }
}

#[test]
fn damaged_saved_kv() {
    let llama = model("llama-f32");
    let mut session = session(&llama);
    feed(&mut *session, 0, 0, &tokens(40, 6), 0);
    let mut saved = Vec::new();
    session.save(SeqId(0), &mut saved).unwrap();
    let format =
        |result: Result<usize, KvError>| assert!(matches!(result, Err(KvError::Format(_))), "{result:?}");
    for len in (0..saved.len()).step_by(97) {
        format(session.restore(SeqId(1), &mut &saved[..len]));
    }
    for at in (0..saved.len()).step_by(61) {
        let mut damaged = saved.clone();
        damaged[at] ^= 0x10;
        let result = session.restore(SeqId(1), &mut damaged.as_slice());
        assert!(matches!(result, Err(KvError::Format(_))), "byte {at}: {result:?}");
    }
    // Counts that the payload does not have, within the context and beyond, take no blocks.
    for (at, value) in [(24, 41), (24, 0), (24, u64::MAX), (32, 0), (32, u64::MAX)] {
        let mut other = saved.clone();
        other[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        format(session.restore(SeqId(1), &mut other.as_slice()));
    }
    format(support::session(&model("qwen2-f32")).restore(SeqId(0), &mut saved.as_slice()));
    for other in [KvType::F16, KvType::Q8_0] {
        let mut other = llama.session(&SessionOptions::new().kv_type(other)).unwrap();
        format(other.restore(SeqId(0), &mut saved.as_slice()));
    }
    // Nothing is left behind, and the sequence can still be filled.
    assert_eq!(session.restore(SeqId(1), &mut saved.as_slice()).unwrap(), 40);
    let taken = session.restore(SeqId(1), &mut saved.as_slice());
    assert!(matches!(taken, Err(KvError::Sequence { .. })));
    assert!(matches!(session.save(SeqId(16), &mut Vec::new()), Err(KvError::Sequence { .. })));
}

/// KV in 16 or 8 bits rounds keys and values, and little else.
#[test]
fn smaller_kv_is_close() {
    for (name, (kv_type, tolerance)) in MODELS
        .into_iter()
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

#[test]
fn kv_runs_out_and_comes_back() {
    let mut session = tiny_session(3);
    assert_eq!(session.capabilities().kv_tokens_max, 96);
    assert_eq!(session.capabilities().context_tokens_max, 96);
    feed(&mut *session, 0, 0, &tokens(60, 0), 0);
    let expected = feed(&mut *session, 1, 0, &tokens(32, 1), 1);
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 60, &tokens(4, 3)).rows(1));
    batch.push(Span::tokens(SeqId(1), 32, &[5]).rows(1));
    let full = session.forward(&batch);
    assert!(matches!(full, Err(StepError::KvFull { needed: 1, free: 0 })), "{full:?}");
    // Nothing has changed: both sequences go on where they were.
    feed(&mut *session, 0, 60, &tokens(4, 3), 1);
    session.release(SeqId(0));
    assert_eq!(feed(&mut *session, 2, 0, &tokens(32, 1), 1), expected);
    feed(&mut *session, 1, 32, &[5], 1);
    session.release(SeqId(99));
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
fn batches_that_are_refused() {
    let options = support::exact().context_tokens(64).batch_tokens(70).sequences(2);
    let mut session = model("llama-f32").session(&options).unwrap();
    feed(&mut *session, 0, 0, &tokens(30, 0), 0);
    let mut refuse = |spans: &[(u32, usize, &[u32])]| {
        let mut batch = Batch::new();
        spans.iter().for_each(|(seq, position, tokens)| {
            batch.push(Span::tokens(SeqId(*seq), *position, tokens).rows(1))
        });
        session.forward(&batch).map(|_| ()).unwrap_err()
    };
    let good: (u32, usize, &[u32]) = (1, 0, &[3]);
    assert!(matches!(refuse(&[good, (0, 29, &[1])]), StepError::Position { held: 30, position: 29, .. }));
    assert!(matches!(refuse(&[good, (0, 31, &[1])]), StepError::Position { .. }));
    assert!(matches!(refuse(&[good, (2, 0, &[1])]), StepError::Sequence { seq: SeqId(2), .. }));
    assert!(matches!(refuse(&[good, (u32::MAX, 0, &[1])]), StepError::Sequence { .. }));
    assert!(matches!(refuse(&[good, (1, 0, &[4])]), StepError::Sequence { seq: SeqId(1), .. }));
    assert!(matches!(refuse(&[good, (1, 1, &[4])]), StepError::Sequence { seq: SeqId(1), .. }));
    assert!(matches!(
        refuse(&[good, (0, 30, &[1, 512])]),
        StepError::InvalidToken { token: 512, n_vocab: 512, .. }
    ));
    assert!(matches!(refuse(&[good, (0, 30, &tokens(35, 0))]), StepError::Sequence { seq: SeqId(0), .. }));
    assert!(matches!(refuse(&[good, (0, usize::MAX, &[1])]), StepError::Position { .. }));
    assert!(matches!(refuse(&[(1, 0, &tokens(71, 0))]), StepError::BatchTooLarge { tokens: 71, limit: 70 }));
    // None of them left a trace.
    assert_eq!(feed(&mut *session, 1, 0, &[3], 1).len(), 1);
    assert_eq!(feed(&mut *session, 0, 30, &tokens(34, 0), 1).len(), 1);
}

#[test]
fn interrupts() {
    let model = model("llama-f32");
    let options = support::exact();
    let interrupt = options.interrupt.clone();
    let mut session = model.session(&options).unwrap();
    feed(&mut *session, 0, 0, &tokens(40, 1), 0);
    interrupt.raise();
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 40, &[7, 8]).rows(1));
    assert!(matches!(session.forward(&batch), Err(StepError::Interrupted)));
    interrupt.clear();
    session.truncate(SeqId(0), 40).unwrap();
    let row = session.forward(&batch).unwrap().row(0).unwrap().to_vec();
    let whole = plain(&model, &[&tokens(40, 1)[..], &[7, 8]].concat());
    assert_close(&[row], &whole[41..], "after an interrupt");
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
        options.clone().kv_tokens(usize::MAX),
        options.clone().kv_tokens(97).kv_bytes(127 * bytes_per_token),
        options.clone().context_tokens(200).kv_bytes(199 * bytes_per_token),
    ];
    for options in refused {
        let result = of(options);
        assert!(matches!(result, Err(LoadError::Memory { what: "the KV cache", .. })), "{result:?}");
    }
    let senseless = [
        options.clone().sequences(0),
        options.clone().sequences(usize::MAX),
        options.clone().batch_tokens(0),
        options.clone().context_tokens(0),
        options.clone().kv_tokens(0),
    ];
    for options in senseless {
        let result = of(options);
        assert!(matches!(result, Err(LoadError::Option { .. })), "{result:?}");
    }
    let long = of(options.context_tokens(1 << 40)).unwrap();
    assert_eq!(long.context_tokens_max, 256);
}

/// Two layers with windows of `w` tokens see `2 * w - 1` tokens together, and nothing before.
#[test]
fn windows_forget() {
    for window in [1, 5, 32, 40] {
        let edit = Edit::of("llama-f32").set("llama.attention.sliding_window", Value::U32(window));
        let model = edit.load().unwrap();
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

/// Every model there is here, whose products are our own.
const OWN_PRODUCTS: [&str; 17] = [
    "llama-f32",
    "llama3-f32",
    "llama-bias-f32",
    "qwen2-f32",
    "qwen3-f32",
    "gemma2-f32",
    "gemma3-f32",
    "phi3-f32",
    "llama-f16",
    "llama-bf16",
    "llama-q4_1",
    "llama-q5_1",
    "llama-q4_0",
    "llama-q5_0",
    "llama-q8_0",
    "llama-q4_k_m",
    "llama-q6_k",
];

fn with_threads(threads: usize) -> SessionOptions {
    SessionOptions::new().threads(ThreadOptions::compute(threads))
}

/// Feeds `tokens` in chunks of `size` beside a stranger that prefills and decodes in turns; the logits of `tokens`.
fn in_company(session: &mut dyn Session, tokens: &[u32], size: usize) -> Vec<Vec<f32>> {
    let stranger = crate::tokens(tokens.len() + 60, 9);
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

/// Whatever else is in the batch, however the tokens are cut, and on any number of threads, a row's logits are the same bits.
#[test]
fn bit_by_bit() {
    for name in OWN_PRODUCTS {
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
    for name in ["llama-q8_0", "qwen2-f32", "gemma3-f32"] {
        let prefix = name.split(['-', '_']).next().unwrap();
        let model = Edit::of(name).set(&format!("{prefix}.context_length"), Value::U32(4096)).load().unwrap();
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
