//! A long prefill ends when nobody waits for it any more, and the session works on. With the candle backend,
//! too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_backend_llamacpp::{KvLayout, LlamaCppBackend};
use exsa_conformance::harness::tokens;
use exsa_core::backend::{InferenceBackend, ModelSource};
use exsa_core::clock::SystemClock;
use exsa_core::queue::Fcfs;
use exsa_core::sampler::SamplingParams;
use exsa_core::{
    EngineLoop, EngineOptions, FinishReason, Mode, PrefixCacheOptions, Request, TokenId, TokenStream,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::load_with;

const PROMPTS: u32 = 8;

/// Passes of which one at least is cut in time.
const ATTEMPTS: usize = 8;

/// Submits prompts of 500 tokens each with `change`; gives their streams and how long the pass over all of
/// them took.
fn prefill(engine: &mut EngineLoop, change: impl Fn(Request) -> Request) -> (Vec<TokenStream>, Duration) {
    let submit = |seed| {
        let request = Request::tokens(tokens(500, seed)).max_tokens(4).ignore_eos(true);
        engine.submit(change(request.sampling(SamplingParams::greedy()))).unwrap()
    };
    let streams = (0..PROMPTS).map(submit).collect();
    let start = Instant::now();
    assert!(engine.step());
    (streams, start.elapsed())
}

fn finish(
    engine: &mut EngineLoop,
    streams: Vec<TokenStream>,
) -> impl Iterator<Item = (FinishReason, Vec<TokenId>)> {
    while engine.step() {}
    assert!(engine.is_empty());
    streams.into_iter().map(|stream| {
        let answer = stream.complete().unwrap();
        (answer.reason, answer.tokens.iter().filter_map(|token| token.id).collect())
    })
}

fn expire(name: &str, backend: &dyn InferenceBackend) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let options = EngineOptions::default()
        .session(support::options().batch_tokens(4096))
        .mode(Mode::Throughput)
        .prefix_cache(PrefixCacheOptions::default().enabled(false));
    let model = load_with(backend, &ModelSource::file(path));
    let mut engine =
        EngineLoop::new(model, options, Box::new(Fcfs::new()), Arc::new(SystemClock::new())).unwrap();
    let (streams, _) = prefill(&mut engine, |request| request);
    let expected: Vec<_> = finish(&mut engine, streams).collect();
    let (streams, whole) = prefill(&mut engine, |request| request);
    assert!(finish(&mut engine, streams).eq(expected.iter().cloned()));

    type Change = fn(Request, Duration) -> Request;
    let limits: [(Change, FinishReason); 2] = [
        (Request::timeout, FinishReason::Deadline),
        (Request::first_token_timeout, FinishReason::FirstTokenTimeout),
    ];
    for (limit, reason) in limits {
        let mut cuts = Vec::new();
        // On a busy machine one may come late.
        while !cuts.iter().any(|cut| *cut < whole * 5 / 8) {
            assert!(cuts.len() < ATTEMPTS, "{name}: {cuts:?} of {whole:?}");
            let (streams, cut) = prefill(&mut engine, |request| limit(request, whole / 4));
            println!("{name}: {reason:?} after {:?} ends a pass of {whole:?} after {cut:?}", whole / 4);
            assert!(finish(&mut engine, streams).all(|ended| ended == (reason.clone(), vec![])), "{name}");
            assert_eq!(engine.stats().scheduler.kv_tokens_used, 0);
            cuts.push(cut);
        }
    }
    let (streams, _) = prefill(&mut engine, |request| request);
    assert!(finish(&mut engine, streams).eq(expected), "{name}: not the same afterwards");
}

#[test]
fn llamacpp() {
    for layout in [KvLayout::Unified, KvLayout::Streams] {
        expire(&format!("{layout:?}"), &LlamaCppBackend::new().kv_layout(layout));
    }
}

#[test]
fn candle() {
    expire("candle", &CandleBackend::new());
}
