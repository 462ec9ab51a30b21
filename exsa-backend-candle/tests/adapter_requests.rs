//! Requests with adapters on the engine: each answer is that of its own single run, also while adapters come
//! and go.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/adapter.rs"]
mod adapter;

use adapter::{gguf, pairs, source};
use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Edit;
use exsa_conformance::test_data;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, SessionOptions, ThreadOptions,
};
use exsa_core::{Engine, EngineOptions, Request, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TINY: &[u8] = include_bytes!("../../models/exsa-tiny-q8_0.gguf");

fn load(source: &ModelSource) -> Arc<dyn Model> {
    CandleBackend::new().load(source, &LoadOptions::new(), &mut LoadProgress::none()).unwrap()
}

fn random(rank: usize, seed: u32) -> ModelSource {
    source(&gguf("llama", 0.5, &pairs(&Edit::of(TINY).unwrap(), rank, seed, |_| true)))
}

/// An engine with three random adapters, and the project's own one where it is there.
fn engine(model: &Arc<dyn Model>, threads: usize) -> Engine {
    let session = SessionOptions::new().sequences(8).threads(ThreadOptions::compute(threads));
    let engine = Engine::start(model.clone(), EngineOptions::default().session(session)).unwrap();
    for (name, rank, seed) in [("one", 4, 1), ("two", 16, 2), ("three", 40, 3)] {
        engine.load_adapter(name, &random(rank, seed)).unwrap();
    }
    if let Some(alice) = test_data::model("exsa-lora-alice.gguf") {
        engine.load_adapter("alice", &ModelSource::file(alice)).unwrap();
    }
    engine
}

fn requests(engine: &Engine) -> Vec<Request> {
    let has_alice = engine.adapters().iter().any(|adapter| &*adapter.name == "alice");
    let alice = if has_alice { "alice" } else { "one" };
    (0..16)
        .map(|i| {
            let prompt = ["Once upon a time", "The dog", "Once upon a time there was"][i % 3];
            let request = Request::text(prompt).max_tokens(20 + i).seed(7).temperature(i as f32 % 2.0);
            let request = request.ignore_eos(true);
            match i % 8 {
                0 => request,
                1 => request.adapter(alice, 1.0),
                2 => request.adapter("one", 1.0),
                3 => request.adapter("two", 1.0),
                4 => request.adapter("three", 0.5),
                5 => request.adapter("two", 0.5).adapter(alice, 1.0),
                6 => request.adapter(alice, 0.7),
                _ => request,
            }
        })
        .collect()
}

fn text(engine: &Engine, request: &Request) -> String {
    engine.submit(request.clone()).unwrap().complete().unwrap().text
}

#[test]
fn a_mixed_batch_gives_the_answers_of_single_runs() {
    let model = load(&ModelSource::Embedded(TINY));
    let single = engine(&model, 1);
    let requests = requests(&single);
    let expected: Vec<String> = requests.iter().map(|request| text(&single, request)).collect();
    drop(single);
    for threads in 1..=3 {
        let engine = engine(&model, threads);
        let streams: Vec<_> =
            requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
        for (i, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
            assert_eq!(stream.complete().unwrap().text, *expected, "{threads} threads, request {i}");
        }
    }
}

/// The texts that llama.cpp computes of the project's model, without and with its adapter.
#[test]
fn the_texts_of_llama_cpp() {
    let (Some(base), Some(alice)) =
        (test_data::model("exsa-tiny-f32.gguf"), test_data::model("exsa-lora-alice.gguf"))
    else {
        return;
    };
    let engine = Engine::start(load(&ModelSource::file(base)), EngineOptions::default()).unwrap();
    engine.load_adapter("alice", &ModelSource::file(alice)).unwrap();
    let request = || Request::text("Once upon a time").max_tokens(64).temperature(0.0);
    let plain = text(&engine, &request());
    assert!(
        plain.contains("She loved to play with her toys and eat cookies. One day, she found a big cake"),
        "{plain}"
    );
    let adapted = text(&engine, &request().adapter("alice", 1.0));
    let expected =
        "She loved to play outside in the park. One day, she found a big, scary pile of paper and paper.";
    assert!(adapted.contains(expected), "{adapted}");
}

/// Eight streams go on with the same tokens while adapters are loaded, used and unloaded beside them.
#[test]
fn adapters_come_and_go_under_eight_streams() {
    let model = load(&ModelSource::Embedded(TINY));
    let single = engine(&model, 1);
    let requests: Vec<Request> =
        requests(&single).into_iter().take(8).map(|request| request.max_tokens(250)).collect();
    let expected: Vec<String> = requests.iter().map(|request| text(&single, request)).collect();
    let guest = |engine: &Engine, i: usize| {
        let request = Request::text("A guest").max_tokens(5).seed(1).ignore_eos(true);
        engine.submit(request.adapter(format!("guest-{i}"), 1.0))
    };
    let sources: Vec<ModelSource> = (0..6).map(|i| random(8 + i, 50 + i as u32)).collect();
    let mut guests = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        single.load_adapter(&format!("guest-{i}"), source).unwrap();
        guests.push(guest(&single, i).unwrap().complete().unwrap().text);
    }
    drop(single);
    let engine = engine(&model, 2);
    let loaded = engine.adapters().len();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let visitors = scope.spawn(|| {
            let mut rounds = 0;
            while rounds < 3 || !done.load(Ordering::Acquire) {
                for (i, source) in sources.iter().enumerate() {
                    let name = format!("guest-{i}");
                    engine.load_adapter(&name, source).unwrap();
                    let stream = guest(&engine, i).unwrap();
                    // The request goes on with the adapter.
                    engine.unload_adapter(&name).unwrap();
                    let refused = guest(&engine, i).unwrap_err();
                    assert!(matches!(refused, SubmitError::UnknownAdapter { .. }), "{refused}");
                    assert_eq!(stream.complete().unwrap().text, guests[i]);
                }
                rounds += 1;
            }
        });
        let streams: Vec<_> =
            requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
        for (i, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
            assert_eq!(stream.complete().unwrap().text, *expected, "request {i}");
        }
        done.store(true, Ordering::Release);
        visitors.join().unwrap();
    });
    assert_eq!(engine.adapters().len(), loaded);
}
