//! Adapters per request: an answer equals that of its adapters alone, whatever other requests run and however
//! many sets the session supports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::adapter::{AdapterError, AdapterOptions};
use exsa_core::backend::{
    AdapterInfo, AdapterLimits, Capabilities, Model, ModelSource, Output, Session, SessionOptions,
};
use exsa_core::batch::{Batch, SpanAdapter};
use exsa_core::clock::ManualClock;
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::queue::Fcfs;
use exsa_core::scripted::ScriptedModel;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{
    AdapterId, Engine, EngineLoop, EngineOptions, Event, FinishReason, Request, Resume, SeqId, SubmitError,
    TokenId, TokenStream,
};
use std::sync::{Arc, Mutex};

fn source(bytes: &[u8]) -> ModelSource {
    ModelSource::Memory(bytes.into())
}

fn model() -> ScriptedModel {
    ScriptedModel::ngram(5).order(usize::MAX)
}

/// An engine whose sessions support `sets` sets of adapters per batch, with some adapters loaded.
fn engine(model: ScriptedModel, sets: usize, sequences: usize) -> EngineLoop {
    let options = EngineOptions::default().session(SessionOptions::new().sequences(sequences));
    let clock = Arc::new(ManualClock::new());
    let engine = EngineLoop::new(model.adapters(3, sets).shared(), options, Box::new(Fcfs::default()), clock);
    let engine = engine.unwrap();
    for name in ["alice", "bob", "carol"] {
        engine.load_adapter(name, &source(name.as_bytes())).unwrap();
    }
    engine
}

fn run(engine: &mut EngineLoop) {
    for _ in 0..100_000 {
        if !engine.step() {
            return;
        }
        engine.scheduler().check().unwrap();
    }
    panic!("the engine does not come to rest");
}

/// The texts of the answers of a request.
fn text(stream: TokenStream) -> String {
    let answers = stream.complete_all().unwrap();
    answers.iter().map(|answer| answer.text.as_str()).collect::<Vec<_>>().join(" | ")
}

/// The tokens of an answer that has ended.
fn ids(mut stream: TokenStream) -> Vec<TokenId> {
    let mut ids = Vec::new();
    while let Some(event) = stream.try_next() {
        match event {
            Event::Token(token) => ids.extend(token.id),
            Event::Finished(finished) => {
                assert_eq!(finished.reason, FinishReason::MaxTokens);
                return ids;
            }
            _ => {}
        }
    }
    panic!("no end")
}

fn request(i: usize) -> Request {
    let request = Request::text(format!("a prompt that is the same for all, and then {}", i % 2));
    let request = request.max_tokens(20 + i % 7).seed(i as u64 % 3).temperature(0.8).ignore_eos(true);
    match i % 6 {
        0 => request,
        1 => request.adapter("alice", 1.0),
        2 => request.adapter("bob", 1.0).adapter("alice", 1.0),
        3 => request.adapter("carol", 2.0),
        4 => request.adapter("alice", 1.0).adapter("bob", 1.0).n(2),
        _ => request.adapter("bob", 0.5),
    }
}

fn alone(request: Request) -> String {
    let mut engine = engine(model(), 16, 4);
    let stream = engine.submit(request).unwrap();
    run(&mut engine);
    text(stream)
}

#[test]
fn answers_are_those_of_single_requests() {
    let requests: Vec<Request> = (0..24).map(request).collect();
    let expected: Vec<String> = requests.iter().cloned().map(alone).collect();
    let two = |first: &str, second: &str| alone(request(0).adapter(first, 1.0).adapter(second, 1.0));
    assert_eq!(two("alice", "bob"), two("bob", "alice"), "the order makes no difference");
    assert!((1..6).all(|i| expected[0] != expected[i]));
    type Make = fn() -> ScriptedModel;
    let models: [(&str, Make); 4] = [
        ("all abilities", model),
        ("little KV", || model().kv(256, 4)),
        ("no fork", || model().without_fork()),
        ("no truncation", || model().without_truncate().kv(256, 4)),
    ];
    for (name, model) in models {
        for sets in [1, 2, 16] {
            for sequences in [1, 3, 8] {
                let mut engine = engine(model(), sets, sequences);
                let streams: Vec<_> =
                    requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
                run(&mut engine);
                for (i, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
                    assert_eq!(text(stream), *expected, "{name}, {sets} sets, {sequences} sequences, {i}");
                }
            }
        }
    }
}

/// A request whose adapters cannot share a pass with others makes progress while other requests come and go.
#[test]
fn no_set_starves() {
    let mut engine = engine(model(), 1, 4);
    let mut long = engine.submit(request(1).max_tokens(100)).unwrap();
    let mut ended = false;
    let mut others = Vec::new();
    let mut steps = 0;
    while !ended {
        // Scales make ever new sets, each of which runs for a step or two.
        let scale = 1.0 + steps as f32;
        others.push(engine.submit(request(0).max_tokens(1).n(1).adapter("bob", scale)).unwrap());
        engine.step();
        ended = std::iter::from_fn(|| long.try_next()).any(|event| matches!(event, Event::Finished(_)));
        steps += 1;
        assert!(steps < 1000, "the long answer starves");
    }
    assert!(steps < 900, "{steps} steps for 100 tokens beside three other sequences");
}

/// A model whose sessions record the adapters of the spans of each pass.
struct Recorded {
    model: Arc<dyn Model>,
    passes: Passes,
}

type Passes = Arc<Mutex<Vec<Vec<Vec<SpanAdapter>>>>>;

impl Model for Recorded {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.model.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let session = self.model.session(options)?;
        Ok(Box::new(RecordedSession { session, passes: self.passes.clone() }))
    }

    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        self.model.load_adapter(source, limits)
    }

    fn unload_adapter(&self, id: AdapterId) {
        self.model.unload_adapter(id);
    }
}

struct RecordedSession {
    session: Box<dyn Session>,
    passes: Passes,
}

impl Session for RecordedSession {
    fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        let sets = batch.spans().map(|span| span.adapters.to_vec()).collect();
        self.passes.lock().unwrap().push(sets);
        self.session.forward(batch)
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.session.fork(from, to, len)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.session.truncate(seq, len)
    }

    fn release(&mut self, seq: SeqId) {
        self.session.release(seq);
    }
}

/// Random requests on a session that supports one set per pass (adapters apply to the whole pass): each pass
/// has one set, and while a set has a running request, no other set has two turns before it.
#[test]
fn one_set_in_a_pass_and_turns_for_all() {
    const SETS: usize = 4;
    for seed in 0..40u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let passes = Passes::default();
        let recorded = Recorded { model: model().adapters(3, 1).shared(), passes: passes.clone() };
        let options = EngineOptions::default().session(SessionOptions::new().sequences(8));
        let clock = Arc::new(ManualClock::new());
        let mut engine =
            EngineLoop::new(Arc::new(recorded), options, Box::new(Fcfs::default()), clock).unwrap();
        let load = |name: &str| engine.load_adapter(name, &source(name.as_bytes())).unwrap().id;
        let alice = ["alice", "bob", "carol"].map(load)[0];
        let of_set = |set: usize, tokens: usize| {
            let request = Request::text(format!("prompt {set}")).max_tokens(tokens).ignore_eos(true);
            match set {
                0 => request,
                1 => request.adapter("alice", 1.0),
                2 => request.adapter("bob", 1.0).adapter("alice", 0.5),
                _ => request.adapter("carol", 1.0),
            }
        };
        // A long request for each set, and others that come and go.
        let mut long: Vec<_> = (0..SETS).map(|set| engine.submit(of_set(set, 60)).unwrap()).collect();
        let mut short = Vec::new();
        // Passes at whose end the long request of a set had ended.
        let mut ended = [None; SETS];
        while ended.iter().any(Option::is_none) {
            if next(3) == 0 {
                let (set, tokens) = (next(SETS as u64) as usize, 1 + next(9) as usize);
                short.push(engine.submit(of_set(set, tokens)).unwrap());
            }
            assert!(engine.step(), "seed {seed}: a long request is left");
            engine.scheduler().check().unwrap();
            let count = passes.lock().unwrap().len();
            assert!(count < 5000, "seed {seed}: {ended:?}");
            for (stream, ended) in long.iter_mut().zip(&mut ended) {
                let has_ended =
                    std::iter::from_fn(|| stream.try_next()).any(|e| matches!(e, Event::Finished(_)));
                if has_ended && ended.is_none() {
                    *ended = Some(count);
                }
            }
        }
        run(&mut engine);
        let passes = passes.lock().unwrap();
        for pass in passes.iter() {
            assert!(pass.iter().all(|set| *set == pass[0]), "seed {seed}: {pass:?}");
        }
        let number = |set: &[SpanAdapter]| match set {
            [] => 0,
            [_, _] => 2,
            [one] if one.id == alice => 1,
            _ => 3,
        };
        for (set, ended) in ended.into_iter().enumerate() {
            let turns = passes[..ended.unwrap()].iter().map(|pass| number(&pass[0]) == set);
            let gaps = turns.collect::<Vec<_>>();
            let longest = gaps.split(|is_turn| *is_turn).map(<[bool]>::len).max();
            // The turns of the others, once each.
            assert!(longest < Some(SETS), "seed {seed}: set {set} waits for {longest:?} passes");
        }
    }
}

/// KV computed with an adapter is used neither without it nor by another adapter of the same name.
#[test]
fn cached_prefixes_belong_to_weights() {
    let mut engine = engine(model(), 16, 4);
    let cached = |engine: &mut EngineLoop, request: Request| {
        let stream = engine.submit(request).unwrap();
        run(engine);
        let answer = stream.complete().unwrap();
        (answer.text, answer.usage.cached_tokens)
    };
    let plain = || request(0).max_tokens(20);
    let with = |scale| plain().adapter("alice", scale);
    let (first, none) = cached(&mut engine, with(1.0));
    assert_eq!(none, 0);
    let (again, some) = cached(&mut engine, with(1.0));
    assert!(again == first && some > 0);
    assert_eq!(cached(&mut engine, plain()).1, 0);
    assert!(cached(&mut engine, plain()).1 > 0);
    assert_eq!(cached(&mut engine, with(0.0)), cached(&mut engine, plain()), "scale 0 is no adapter");
    assert_eq!(cached(&mut engine, with(2.0)).1, 0);
    assert_eq!(cached(&mut engine, with(1.0).adapter("bob", 1.0)).1, 0);
    engine.unload_adapter("alice").unwrap();
    engine.load_adapter("alice", &source(b"another one")).unwrap();
    let (other, none) = cached(&mut engine, with(1.0));
    assert!(other != first && none == 0);
    engine.unload_adapter("alice").unwrap();
    engine.load_adapter("alice", &source(b"alice")).unwrap();
    let (same, some) = cached(&mut engine, with(1.0));
    assert!(same == first && some > 0, "the same weights again");
}

#[test]
fn loading_and_unloading_under_traffic() {
    let options = EngineOptions::default().adapters(AdapterOptions::new().count_max(2).bytes_max(10));
    let engine = Engine::start(model().adapters(2, 1).shared(), options).unwrap();
    let adapter = engine.load_adapter("alice", &source(b"alice")).unwrap();
    assert_eq!((&*adapter.name, adapter.bytes, adapter.requests), ("alice", 5, 0));
    let long = || Request::text("go on").max_tokens(3000).seed(1).ignore_eos(true).adapter("alice", 1.0);
    let expected = text(engine.submit(long()).unwrap());
    let stream = engine.submit(long()).unwrap();
    // The first request's end is told before it lets go of the adapter.
    while engine.adapters()[0].requests > 1 {
        std::thread::yield_now();
    }
    assert_eq!(engine.adapters()[0].requests, 1);
    engine.unload_adapter("alice").unwrap();
    assert!(engine.adapters().is_empty());
    let refused = engine.submit(long()).unwrap_err();
    assert!(matches!(refused, SubmitError::UnknownAdapter { .. }), "{refused}");
    assert_eq!(refused.to_string(), "there is no adapter 'alice'; loaded: none");
    // Its bytes count until the request has ended; nobody reads its stream yet.
    let error = engine.load_adapter("bob", &source(b"123456")).unwrap_err();
    assert!(
        matches!(error, AdapterError::Load(LoadError::Memory { needed: 6, available: 5, .. })),
        "{error}"
    );
    assert_eq!(text(stream), expected, "the request goes on with its adapter");
    while let Err(error) = engine.load_adapter("bob", &source(b"123456")) {
        assert!(matches!(error, AdapterError::Load(LoadError::Memory { .. })), "{error}");
        std::thread::yield_now();
    }
}

#[test]
fn refusals() {
    let options = EngineOptions::default().adapters(AdapterOptions::new().count_max(2));
    let engine = Engine::start(model().adapters(2, 1).shared(), options).unwrap();
    engine.load_adapter("alice", &source(b"alice")).unwrap();
    let load = |name: &str, bytes: &[u8]| engine.load_adapter(name, &source(bytes)).unwrap_err().to_string();
    assert_eq!(load("alice", b"x"), "adapter 'alice' is already loaded; unload it first");
    assert!(load("", b"x").contains("is not a valid adapter name"));
    assert!(load("a@b", b"x").contains("is not a valid adapter name"));
    assert_eq!(load("empty", b""), "adapter scripted: it is empty, but at least 1 byte is required");
    engine.load_adapter("bob", &source(b"bob")).unwrap();
    assert_eq!(load("carol", b"x"), "2 adapters are loaded, which is the limit; unload one first");
    assert_eq!(
        engine.unload_adapter("carol").unwrap_err().to_string(),
        "there is no adapter 'carol'; loaded: alice, bob"
    );
    let submit = |request: Request| engine.submit(request).unwrap_err().to_string();
    let plain = || Request::text("x");
    assert_eq!(submit(plain().adapter("carol", 1.0)), "there is no adapter 'carol'; loaded: alice, bob");
    assert_eq!(submit(plain().adapter("bob", f32::NAN)), "lora: the scale of 'bob' is NaN");
    let twice = plain().adapter("bob", 1.0).adapter("bob", 2.0);
    assert_eq!(submit(twice), "lora: 'bob' is named twice");
    let three = plain().adapter("alice", 1.0).adapter("bob", 1.0).adapter("carol", 1.0);
    assert_eq!(submit(three), "lora: 3 adapters, but at most 2 are allowed");
    // Sessions that take none.
    let engine = Engine::start(model().shared(), EngineOptions::default()).unwrap();
    let error = engine.load_adapter("alice", &source(b"alice")).unwrap_err();
    assert!(matches!(error, AdapterError::Unsupported { .. }), "{error}");
    let error = engine.submit(plain().adapter("alice", 1.0)).unwrap_err();
    assert_eq!(error.to_string(), "lora: this engine does not support adapters per request");
}

/// An interrupted answer continues with its adapters.
#[test]
fn resumed_answers() {
    let mut engine = engine(model(), 1, 4);
    let request = || request(3).max_tokens(30);
    let whole = engine.submit(request()).unwrap();
    run(&mut engine);
    let whole = ids(whole);
    let rest = engine.submit(request().resume(Resume::new(&whole[..11]))).unwrap();
    run(&mut engine);
    assert_eq!(ids(rest), whole[11..]);
}
