//! Requests with adapters on the engine: the scheduler gives each pass to one set of adapters, each answer is
//! that of its own single run, also while adapters come and go.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../exsa-backend-candle/tests/support/adapter.rs"]
mod adapter;
mod support;

use adapter::{gguf, pairs, source};
use exsa_conformance::edit::Edit;
use exsa_core::backend::{Model, ModelSource};
use exsa_core::gguf::GgmlType;
use exsa_core::{Engine, EngineOptions, Request, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{exact_options, layouts, load_with};

const ALICE: &[u8] = include_bytes!("../../models/exsa-lora-alice.gguf");

/// The project's model in f32: with activations in 8 bits, sums in another order would become steps.
fn tiny() -> Edit {
    let mut edit = Edit::of(include_bytes!("../../models/exsa-tiny-q8_0.gguf")).unwrap();
    for tensor in edit.tensors.iter_mut().filter(|tensor| tensor.dtype != GgmlType::F32) {
        let mut values = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
        exsa_quant::dequantize(tensor.dtype, &tensor.data, &mut values).unwrap();
        tensor.data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensor.dtype = GgmlType::F32;
    }
    edit
}

/// A random adapter for every matrix of the layers.
fn random(base: &Edit, rank: usize, seed: u32) -> ModelSource {
    source(&gguf("llama", 0.5, &pairs(base, rank, seed, |_| true)))
}

/// An engine with the project's adapter and three random ones.
fn engine(model: &Arc<dyn Model>, base: &Edit) -> Engine {
    let options = EngineOptions::default().session(exact_options().sequences(8));
    let engine = Engine::start(model.clone(), options).unwrap();
    engine.load_adapter("alice", &ModelSource::Embedded(ALICE)).unwrap();
    for (name, rank, seed) in [("one", 4, 1), ("two", 16, 2), ("three", 40, 3)] {
        engine.load_adapter(name, &random(base, rank, seed)).unwrap();
    }
    engine
}

fn request(i: usize) -> Request {
    let prompt = ["Once upon a time", "The dog", "Once upon a time there was"][i % 3];
    let request = Request::text(prompt).max_tokens(16 + i).seed(7).temperature(i as f32 % 2.0);
    let request = request.ignore_eos(true);
    match i % 8 {
        0 | 7 => request,
        1 => request.adapter("alice", 1.0),
        2 => request.adapter("one", 1.0),
        3 => request.adapter("two", 1.0),
        4 => request.adapter("three", 0.5),
        5 => request.adapter("two", 0.5).adapter("alice", 1.0),
        _ => request.adapter("alice", 0.7),
    }
}

fn text(engine: &Engine, request: &Request) -> String {
    engine.submit(request.clone()).unwrap().complete().unwrap().text
}

#[test]
fn a_mixed_load_gives_the_answers_of_single_runs() {
    let base = tiny();
    for backend in layouts() {
        let model = load_with(&backend, &base.source());
        let requests: Vec<Request> = (0..16).map(request).collect();
        let single = engine(&model, &base);
        let expected: Vec<String> = requests.iter().map(|request| text(&single, request)).collect();
        drop(single);
        let distinct: std::collections::BTreeSet<_> = expected.iter().collect();
        assert!(distinct.len() > 12, "{expected:?}");
        let engine = engine(&model, &base);
        let streams: Vec<_> =
            requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
        for (i, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
            assert_eq!(stream.complete().unwrap().text, *expected, "request {i}");
        }
    }
}

/// Eight streams go on with the same tokens while adapters are loaded, used and unloaded beside them.
#[test]
fn adapters_come_and_go_under_eight_streams() {
    let base = tiny();
    let model = load_with(&layouts()[1], &base.source());
    let single = engine(&model, &base);
    let requests: Vec<Request> = (0..8).map(|i| request(i).max_tokens(120)).collect();
    let expected: Vec<String> = requests.iter().map(|request| text(&single, request)).collect();
    let guest = |engine: &Engine, i: usize| {
        let request = Request::text("A guest").max_tokens(5).seed(1).ignore_eos(true);
        engine.submit(request.adapter(format!("guest-{i}"), 1.0))
    };
    let sources: Vec<ModelSource> = (0..4).map(|i| random(&base, 8 + i, 50 + i as u32)).collect();
    let mut guests = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        single.load_adapter(&format!("guest-{i}"), source).unwrap();
        guests.push(guest(&single, i).unwrap().complete().unwrap().text);
    }
    drop(single);
    let engine = engine(&model, &base);
    let loaded = engine.adapters().len();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let visitors = scope.spawn(|| {
            let mut rounds = 0;
            while rounds < 2 || !done.load(Ordering::Acquire) {
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
