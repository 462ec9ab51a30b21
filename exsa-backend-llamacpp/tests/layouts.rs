//! Cost of the two layouts of KV: times of decoding steps and of forks, side by side.
//!
//! `EXSA_MODEL=FILE cargo nextest run -p exsa-backend-llamacpp --test layouts --run-ignored all
//! --no-capture`; the built-in model without `EXSA_MODEL`. llama.cpp is optimized in every profile.
#![allow(clippy::unwrap_used)]

mod support;

use exsa_backend_llamacpp::{KvLayout, LlamaCppBackend};
use exsa_conformance::harness::{feed, tokens};
use exsa_core::SeqId;
use exsa_core::backend::{Model, ModelSource, Session, SessionOptions};
use exsa_core::batch::{Batch, Span};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::load_with;

const STEPS: usize = 24;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn session_of(model: &Arc<dyn Model>, context: usize) -> Box<dyn Session> {
    let options = SessionOptions::new().context_tokens(context).kv_bytes(8 << 30);
    model.session(&options).unwrap()
}

/// Median time of a step that decodes one token of each of `n` sequences.
fn decode(session: &mut dyn Session, n: u32, held: usize) -> Duration {
    let mut times = Vec::new();
    for step in 0..STEPS {
        let mut batch = Batch::new();
        (0..n).for_each(|seq| batch.push(Span::tokens(SeqId(seq), held + step, &[7]).rows(1)));
        let start = Instant::now();
        session.forward(&batch).unwrap();
        times.push(start.elapsed());
    }
    (0..n).for_each(|seq| session.truncate(SeqId(seq), held).unwrap());
    median(times)
}

/// Fills `n` sequences with `len` tokens: each its own, or all forks of the first. Gives the time of one
/// fork.
fn fill(session: &mut dyn Session, n: u32, len: usize, shared: bool) -> Duration {
    let mut forks = vec![Duration::ZERO];
    for seq in 0..n {
        if shared && seq > 0 {
            let start = Instant::now();
            session.fork(SeqId(0), SeqId(seq), len).unwrap();
            forks.push(start.elapsed());
            continue;
        }
        for (i, chunk) in tokens(len, seq).chunks(256).enumerate() {
            feed(session, seq, i * 256, chunk, 0);
        }
    }
    median(forks)
}

#[test]
#[ignore = "measures"]
fn times_side_by_side() {
    let built_in = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let path = std::env::var_os("EXSA_MODEL").map_or(built_in, PathBuf::from);
    let models = [KvLayout::Unified, KvLayout::Streams]
        .map(|layout| load_with(&LlamaCppBackend::new().kv_layout(layout), &ModelSource::file(&path)));
    println!("{}", models[0].info().summary());
    for len in [64, 256, 448] {
        for (n, shared) in [(1, false), (4, false), (16, false), (16, true)] {
            let [unified, streams] = [&models[0], &models[1]].map(|model| {
                let mut session = session_of(model, 512);
                let fork = fill(&mut *session, n, len, shared);
                (decode(&mut *session, n, len), fork)
            });
            let ratio = unified.0.as_secs_f64() / streams.0.as_secs_f64();
            let kind = if shared { "forks of one" } else { "sequences" };
            println!(
                "{n} {kind} of {len} tokens: step {:.2?} unified, {:.2?} streams ({ratio:.2}); fork {:.1?}, {:.1?}",
                unified.0, streams.0, unified.1, streams.1
            );
        }
    }
}
