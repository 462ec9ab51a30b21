//! Sessions of llama.cpp beyond the contract: layouts of KV, its types and sizes, interrupts, windows.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_llamacpp::{FlashAttention, KvLayout, LlamaCppBackend};
use exsa_conformance::harness::{feed, tokens, worst};
use exsa_core::SeqId;
use exsa_core::backend::{KvType, Model, ModelSource, Session, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{KvError, LoadError, StepError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{data, layouts, load_with, session};

/// Models of several kinds, gemma with windows of 32 tokens.
const MODELS: [&str; 4] = ["llama-f32", "qwen3-f32", "gemma2-f32", "gemma3-f32"];

/// Of logits whose standard deviation is about 2. llama.cpp sums in another order when a batch has another
/// shape.
const TOLERANCE: f32 = 1e-3;

/// The same of models with GELU, which llama.cpp looks up in a table of 16 bits: it turns small differences
/// into steps.
const TOLERANCE_GELU: f32 = 0.03;

fn assert_close(a: &[Vec<f32>], b: &[Vec<f32>], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let tolerance = if what.starts_with("gemma") { TOLERANCE_GELU } else { TOLERANCE };
    for (row, (a, b)) in a.iter().zip(b).enumerate() {
        let worst = worst(a, b);
        assert!(worst < tolerance, "{what}, row {row}: {worst}");
    }
}

/// Calls `test` with each model in each layout.
fn each(test: impl Fn(&str, &Arc<dyn Model>)) {
    for name in MODELS {
        for backend in layouts() {
            let model = load_with(&backend, &ModelSource::file(data(&format!("{name}.gguf"))));
            test(name, &model);
        }
    }
}

/// Logits of every token, from one pass.
fn plain(model: &Arc<dyn Model>, tokens: &[u32]) -> Vec<Vec<f32>> {
    feed(&mut *session(model), 0, 0, tokens, tokens.len())
}

/// A copy is whole at once, not when the next pass begins.
#[test]
fn forked_then_saved_or_overwritten() {
    each(|name, model| {
        let capabilities = session(model).capabilities().clone();
        if !capabilities.fork || !capabilities.save {
            return;
        }
        let (prefix, other) = (tokens(40, 3), tokens(30, 4));
        let expected = plain(model, &[&prefix[..], &[9]].concat()).remove(40);
        let mut session = session(model);
        feed(&mut *session, 3, 0, &other, 0);
        let mut saved_other = Vec::new();
        session.save(SeqId(3), &mut saved_other).unwrap();
        feed(&mut *session, 0, 0, &prefix, 0);
        session.fork(SeqId(0), SeqId(1), 40).unwrap();
        let mut saved = Vec::new();
        session.save(SeqId(1), &mut saved).unwrap();
        session.release(SeqId(0));
        session.restore(SeqId(0), &mut saved_other.as_slice()).unwrap();
        session.restore(SeqId(2), &mut saved.as_slice()).unwrap();
        for seq in [1, 2] {
            let row = feed(&mut *session, seq, 40, &[9], 1);
            assert_close(&row, std::slice::from_ref(&expected), &format!("{name}, sequence {seq}"));
        }
    });
}

/// Shared tokens take no room, over and over.
#[test]
fn all_cells_can_be_used_by_forks() {
    for backend in layouts() {
        let model = load_with(&backend, &ModelSource::file(data("llama-f32.gguf")));
        let mut session = session(&model);
        for _ in 0..3 {
            for seq in 0..16 {
                feed(&mut *session, seq, 0, &tokens(256, seq), 0);
            }
            (1..16).for_each(|seq| session.release(SeqId(seq)));
            for seq in 1..16 {
                session.fork(SeqId(0), SeqId(seq), 200).unwrap();
                feed(&mut *session, seq, 200, &tokens(56, seq), 1);
            }
            (0..16).for_each(|seq| session.release(SeqId(seq)));
        }
    }
}

/// An interrupt ends a pass that runs, and the session works on.
#[test]
fn interrupts_in_the_middle() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    for layout in [KvLayout::Unified, KvLayout::Streams] {
        let model = load_with(&LlamaCppBackend::new().kv_layout(layout), &ModelSource::file(&path));
        let options = support::options().batch_tokens(4096);
        let interrupt = options.interrupt.clone();
        let mut session = model.session(&options).unwrap();
        let mut reference = model.session(&support::options()).unwrap();
        feed(&mut *session, 0, 0, &tokens(40, 1), 0);
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), 40, &tokens(400, 2)).rows(1));
        for seq in 1..8 {
            batch.push(Span::tokens(SeqId(seq), 0, &tokens(500, seq)).rows(1));
        }
        let start = Instant::now();
        session.forward(&batch).unwrap();
        let whole = start.elapsed();
        session.truncate(SeqId(0), 40).unwrap();
        (1..8).for_each(|seq| session.release(SeqId(seq)));

        let flag = interrupt.clone();
        let raised = std::thread::spawn(move || {
            std::thread::sleep(whole / 4);
            flag.raise();
            Instant::now()
        });
        let result = session.forward(&batch).map(|_| ());
        let late = raised.join().unwrap().elapsed();
        assert!(matches!(result, Err(StepError::Interrupted)), "{result:?}");
        assert!(late < whole / 2 + Duration::from_millis(50), "{late:?} after the interrupt, of {whole:?}");
        assert!(matches!(session.forward(&batch), Err(StepError::Interrupted)));

        interrupt.clear();
        session.truncate(SeqId(0), 40).unwrap();
        let row = feed(&mut *session, 0, 40, &[7, 8], 1);
        let expected = feed(&mut *reference, 0, 0, &[&tokens(40, 1)[..], &[7, 8]].concat(), 1);
        assert!(worst(&row[0], &expected[0]) < 0.05, "{layout:?}: {}", worst(&row[0], &expected[0]));
        session.release(SeqId(0));
        let all = session.capabilities().kv_tokens_max;
        let mut held = 0;
        for seq in 0..16 {
            let n = (all - held).min(session.capabilities().context_tokens_max);
            feed(&mut *session, seq, 0, &tokens(n, 3), 0);
            held += n;
        }
        assert_eq!(held, all);
    }
}

/// Tenths of a bit that a value takes.
fn bits(kv_type: KvType) -> u64 {
    match kv_type {
        KvType::F32 => 320,
        KvType::F16 | KvType::Bf16 => 160,
        KvType::Q8_0 => 85,
        KvType::Q4_0 => 45,
        other => panic!("{other} is new"),
    }
}

/// Each session has types of its own, on one model.
#[test]
fn quantized_kv_is_close() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let rows = |mut session: Box<dyn Session>| feed(&mut *session, 0, 0, &tokens(100, 1), 100);
    let exact = rows(session(&load_with(&support::exact(), &ModelSource::file(&path))));
    let model = load_with(&LlamaCppBackend::new(), &ModelSource::file(&path));
    let scale = exact.iter().flatten().fold(0.0f32, |m, x| m.max(x.abs()));
    for (keys, values, tolerance) in [
        (KvType::F16, KvType::F16, 0.03),
        (KvType::Bf16, KvType::Bf16, 0.1),
        (KvType::Q8_0, KvType::Q8_0, 0.1),
        (KvType::F16, KvType::Q4_0, 0.5),
        (KvType::Q4_0, KvType::Q4_0, 1.0),
    ] {
        let session = model.session(&support::options().kv_types(keys, values)).unwrap();
        let bytes = session.kv_bytes_per_token().unwrap();
        assert_eq!(
            bytes,
            model.info().kv_bytes_per_token * (bits(keys) + bits(values)) / 320,
            "{keys} {values}"
        );
        let rows = rows(session);
        let worst = worst(&rows.concat(), &exact.concat());
        eprintln!("{keys:?} {values:?}: {worst} of {scale}");
        assert!(worst < tolerance * scale, "{keys:?} {values:?}: {worst} of {scale}");
        assert!(worst > 0.0, "{keys:?} {values:?} changes nothing");
    }
}

/// Capabilities depend on model and layout, and are true.
#[test]
fn capabilities() {
    let of = |backend: &LlamaCppBackend, name: &str| {
        let model = load_with(backend, &ModelSource::file(data(&format!("{name}.gguf"))));
        let capabilities = session(&model).capabilities().clone();
        (capabilities.fork, capabilities.truncate, capabilities.save)
    };
    let [unified, streams] = layouts();
    for backend in [&unified, &streams] {
        assert_eq!(of(backend, "llama-f32"), (true, true, true));
    }
    assert_eq!(of(&streams, "gemma3-f32"), (true, true, false));
    assert_eq!(of(&support::exact(), "gemma3-f32"), (true, true, false));
    assert_eq!(of(&unified, "gemma3-f32"), (false, false, true));
    assert_eq!(of(&streams.swa_full(false), "gemma3-f32"), (false, false, true));
}

/// Layers that keep their window alone can be neither cut nor shared, and say so.
#[test]
fn windows_without_the_rest() {
    let backend = support::exact().swa_full(false);
    let model = load_with(&backend, &ModelSource::file(data("gemma3-f32.gguf")));
    let mut session = session(&model);
    let tokens = tokens(120, 1);
    let expected = plain(&load_with(&support::exact(), &ModelSource::file(data("gemma3-f32.gguf"))), &tokens);
    let mut rows = feed(&mut *session, 0, 0, &tokens[..60], 60);
    rows.extend(feed(&mut *session, 0, 60, &tokens[60..], 60));
    assert_close(&rows, &expected, "gemma3, windows alone");
    assert!(matches!(session.fork(SeqId(0), SeqId(1), 120), Err(KvError::Unsupported(_))));
    assert!(matches!(session.truncate(SeqId(0), 50), Err(KvError::Unsupported(_))));
    session.truncate(SeqId(0), 120).unwrap();
    session.truncate(SeqId(0), 0).unwrap();
    feed(&mut *session, 0, 0, &tokens, 1);
}

#[test]
fn sizes_of_sessions() {
    let model = load_with(&LlamaCppBackend::new(), &ModelSource::file(data("llama-f32.gguf")));
    let options = support::options();
    let bytes_per_token = model.info().kv_bytes_per_token;
    let of = |options: SessionOptions| model.session(&options).map(|session| session.capabilities().clone());
    let default = of(options.clone()).unwrap();
    assert_eq!((default.context_tokens_max, default.kv_tokens_max, default.block_tokens), (256, 256 * 16, 1));
    let tight = of(options.clone().kv_bytes(600 * bytes_per_token)).unwrap();
    assert_eq!((tight.kv_tokens_max, tight.context_tokens_max), (512, 256));
    let refused = [
        options.clone().kv_bytes(255 * bytes_per_token),
        options.clone().kv_tokens(257).kv_bytes(511 * bytes_per_token),
        options.clone().context_tokens(200).kv_bytes(199 * bytes_per_token),
    ];
    for options in refused {
        let result = of(options);
        assert!(matches!(result, Err(LoadError::Memory { what: "the KV cache", .. })), "{result:?}");
    }
    let many = of(options.clone().sequences(257));
    assert!(matches!(many, Err(LoadError::Option { .. })), "{many:?}");
    let streams = LlamaCppBackend::new().kv_layout(KvLayout::Streams);
    let streams = load_with(&streams, &ModelSource::file(data("llama-f32.gguf")));
    let few = streams.session(&options.clone().kv_tokens(300)).unwrap();
    assert_eq!((few.capabilities().kv_tokens_max, few.capabilities().context_tokens_max), (300, 256));
    let all = options.kv_tokens(usize::MAX);
    assert!(matches!(streams.session(&all).map(|_| ()), Err(LoadError::Memory { .. })));
}

/// Values lie the other way round without flash attention.
#[test]
fn saved_kv_and_flash_attention() {
    let source = ModelSource::file(data("llama-f32.gguf"));
    let [on, off] = [FlashAttention::On, FlashAttention::Off]
        .map(|mode| load_with(&LlamaCppBackend::new().flash_attention(mode), &source));
    for (with, without) in [(&on, &off), (&off, &on)] {
        let mut from = session(with);
        feed(&mut *from, 0, 0, &tokens(20, 1), 0);
        let mut saved = Vec::new();
        from.save(SeqId(0), &mut saved).unwrap();
        assert_eq!(session(with).restore(SeqId(1), &mut saved.as_slice()).unwrap(), 20);
        let refused = session(without).restore(SeqId(1), &mut saved.as_slice());
        assert!(matches!(refused, Err(KvError::Format(_))), "{refused:?}");
    }
}

/// Those that are left over with gaps between them are moved together, also over one that waits; none of them
/// notices.
#[test]
fn sequences_with_gaps_between_them() {
    each(|name, model| {
        let texts: Vec<Vec<u32>> = (0..6).map(|seq| tokens(40, seq)).collect();
        let exact: Vec<Vec<Vec<f32>>> = texts.iter().map(|text| plain(model, text)).collect();
        let mut session = session(model);
        let mut step = |spans: &[(u32, usize, usize)]| {
            let mut batch = Batch::new();
            for &(seq, position, len) in spans {
                batch.push(
                    Span::tokens(SeqId(seq), position, &texts[seq as usize][position..position + len])
                        .rows(1),
                );
            }
            let logits = session.forward(&batch).unwrap().logits().unwrap();
            for (row, &(seq, position, len)) in spans.iter().enumerate() {
                let row = logits.row(row).unwrap().to_vec();
                let exact = exact[seq as usize][position + len - 1].clone();
                assert_close(&[row], &[exact], &format!("{name}, sequence {seq} from {position}"));
            }
            session.release(SeqId(1));
            session.release(SeqId(4));
        };
        step(&[0, 1, 2, 3, 4, 5].map(|seq| (seq, 0, 20 + seq as usize)));
        // Sequence 3 waits.
        (0..8).for_each(|i| step(&[(5, 25 + i, 1), (0, 20 + i, 1), (2, 22 + i, 1)]));
        step(&[(3, 23, 4), (1, 0, 9)]);
        (0..4).for_each(|i| step(&[(0, 28 + i, 1), (2, 30 + i, 1), (3, 27 + i, 1), (5, 33 + i, 1)]));
        if !session.capabilities().fork {
            return;
        }
        session.fork(SeqId(5), SeqId(1), 30).unwrap();
        let rows = feed(&mut *session, 1, 30, &texts[5][30..], 10);
        assert_close(&rows, &exact[5][30..], &format!("{name}, forked"));
    });
}
