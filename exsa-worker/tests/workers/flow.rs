//! Many streams, slow consumers, cancels, requests for vectors, the queue.

use crate::engines::{in_process, options, scripted};
use crate::harness::Test;
use crate::streams::{WAIT, read, seeded, start};
use exsa_core::backend::{Pooling, SessionOptions};
use exsa_core::sampler::{SamplerContext, SamplingError, Transform, TransformFactory};
use exsa_core::{
    EmbedRequest, Engine, EngineOptions, Event, FinishReason, Generator, Mode, Request, RerankRequest,
    SubmitError,
};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("flow::sixty_four_streams_at_once", sixty_four_streams_at_once),
    ("flow::a_consumer_that_does_not_read_delays_nobody", a_consumer_that_does_not_read_delays_nobody),
    ("flow::cancels_are_not_delayed_by_long_prompts", cancels_are_not_delayed_by_long_prompts),
    ("flow::dropped_streams_free_the_engine", dropped_streams_free_the_engine),
    ("flow::vectors_and_scores", vectors_and_scores),
    ("flow::wrong_requests_are_refused_at_once", wrong_requests_are_refused_at_once),
    ("flow::a_full_queue_refuses", a_full_queue_refuses),
    ("flow::places_in_the_queue_are_told", places_in_the_queue_are_told),
];

fn sixty_four_streams_at_once() {
    let worker = start(options(json!({})));
    let engine = in_process(&json!({}));
    let request = |i: usize| seeded(&format!("prompt {i}"), 40 + i);
    let streams: Vec<_> = (0..64).map(|i| worker.submit(request(i)).unwrap()).collect();
    let readers: Vec<_> =
        streams.into_iter().map(|stream| std::thread::spawn(move || read(stream))).collect();
    for (i, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.join().unwrap(), read(engine.submit(request(i)).unwrap()), "stream {i}");
    }
}

fn a_consumer_that_does_not_read_delays_nobody() {
    let mut settings = options(json!({}));
    settings.engine = EngineOptions::default().stream_events_max(16);
    let worker = start(settings);
    let unread = worker.submit(seeded("unread", 3000)).unwrap();
    let engine = in_process(&json!({}));
    for i in 0..5 {
        let request = || seeded(&format!("read {i}"), 200);
        assert_eq!(read(worker.submit(request()).unwrap()), read(engine.submit(request()).unwrap()));
    }
    // It is paused, rather than kept whole in the host's memory.
    let until = Instant::now() + WAIT;
    while worker.stats().scheduler.paused != 1 {
        assert!(Instant::now() < until, "{:?}", worker.stats().scheduler);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(worker.stats().tokens_generated < 3000 + 1000, "{}", worker.stats().tokens_generated);
    assert_eq!(read(unread), read(engine.submit(seeded("unread", 3000)).unwrap()));
}

fn cancels_are_not_delayed_by_long_prompts() {
    let mut settings = options(json!({"pace_us": 1000}));
    settings.engine = EngineOptions::default().session(SessionOptions::new().sequences(2));
    let worker = start(settings);
    let mut running = worker.submit(seeded("running", 4000)).unwrap();
    assert!(running.next().is_some());
    // Grammars and prompts that take the worker's preparation some time.
    let long: Vec<_> = (0..8).map(|_| worker.submit(seeded(&"long ".repeat(700), 1)).unwrap()).collect();
    let start = Instant::now();
    running.cancel();
    let end = running.by_ref().find_map(|event| match event {
        Event::Finished(end) => Some(end),
        _ => None,
    });
    assert_eq!(end.unwrap().reason, FinishReason::Cancelled);
    let took = start.elapsed();
    eprintln!("a cancel took {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    long.into_iter().for_each(|stream| assert_eq!(read(stream).1.reason, FinishReason::MaxTokens));
}

fn dropped_streams_free_the_engine() {
    let mut settings = options(json!({"pace_us": 1000}));
    settings.engine = EngineOptions::default().session(SessionOptions::new().sequences(2));
    let worker = start(settings);
    for i in 0..20 {
        let mut stream = worker.submit(seeded(&format!("{i}"), 4000)).unwrap();
        if i % 2 == 0 {
            assert!(stream.next().is_some());
        }
    }
    assert_eq!(read(worker.submit(seeded("after them", 3)).unwrap()).1.reason, FinishReason::MaxTokens);
    let until = Instant::now() + WAIT;
    while worker.status().open > 0 {
        assert!(Instant::now() < until, "{:?}", worker.status());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn vectors_and_scores() {
    for pooling in [Pooling::Mean, Pooling::Rank] {
        let engine_options = || EngineOptions::default().session(SessionOptions::new().pooling(pooling));
        let engine = Engine::start(scripted(&json!({})), engine_options()).unwrap();
        let worker = start(options(json!({})).engine(engine_options()));
        let embed = || EmbedRequest::texts(["one", "another text", ""].map(|text| format!("{text}.")));
        let rerank = || RerankRequest::new("query", ["first", "second document"]);
        match (worker.embed(embed()), engine.embed(embed())) {
            (Ok(a), Ok(b)) => assert_eq!(a.wait().unwrap().into_vectors(), b.wait().unwrap().into_vectors()),
            (Err(SubmitError::Unsupported { .. }), Err(SubmitError::Unsupported { .. })) => {}
            (a, b) => panic!("{a:?}, but in process {b:?}"),
        }
        match (worker.rerank(rerank()), engine.rerank(rerank())) {
            (Ok(a), Ok(b)) => assert_eq!(a.wait().unwrap().scores, b.wait().unwrap().scores),
            (Err(SubmitError::Unsupported { .. }), Err(SubmitError::Unsupported { .. })) => {}
            (a, b) => panic!("{a:?}, but in process {b:?}"),
        }
        // Nobody waits for these.
        drop(worker.embed(embed()));
        drop(worker.rerank(rerank()));
    }
}

#[derive(Debug)]
struct Nothing;

impl TransformFactory for Nothing {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        unreachable!("it is refused before")
    }
}

fn wrong_requests_are_refused_at_once() {
    let worker = start(options(json!({})));
    let engine = in_process(&json!({}));
    for request in [
        Request::text("x").max_tokens(0),
        Request::tokens([100_000]),
        Request::text("x").temperature(-1.0),
        Request::text("x".repeat(100_000)),
    ] {
        let own = worker.submit(request.clone()).unwrap_err().to_string();
        assert_eq!(own, engine.submit(request).unwrap_err().to_string());
    }
    let transformed = Request::text("x").transform(Arc::new(Nothing));
    assert!(matches!(
        worker.submit(transformed),
        Err(SubmitError::Unsupported { operation: "transforms", .. })
    ));
    worker.set_mode(Mode::Latency);
    assert_eq!(read(worker.submit(seeded("goes on", 3)).unwrap()).0.len(), 3);
    assert_eq!(worker.status().restarts, 0);
}

fn a_full_queue_refuses() {
    let mut settings = options(json!({"pace_us": 2000}));
    settings.engine = EngineOptions::default().queue_max(4).session(SessionOptions::new().sequences(1));
    let worker = start(settings);
    let streams: Vec<_> = (0..50).map(|_| worker.submit(seeded("x", 2000))).collect();
    let refused = streams
        .iter()
        .filter(|stream| matches!(stream, Err(SubmitError::QueueFull { limit: 4, .. })))
        .count();
    let accepted = streams.iter().filter(|stream| stream.is_ok()).count();
    assert_eq!(refused + accepted, 50);
    assert!((2..=8).contains(&accepted), "{accepted}");
}

fn places_in_the_queue_are_told() {
    let mut settings = options(json!({"pace_us": 2000}));
    settings.engine = EngineOptions::default().session(SessionOptions::new().sequences(1));
    let worker = start(settings);
    let mut running = worker.submit(seeded("runs", 4000)).unwrap();
    assert!(running.next().is_some());
    let waiting: Vec<_> = (0..3).map(|_| worker.submit(seeded("waits", 3)).unwrap()).collect();
    let until = Instant::now() + Duration::from_secs(4);
    // Their preparation in the worker takes a moment, and two are prepared at a time: their order may differ.
    loop {
        let places = waiting.iter().map(|stream| stream.queue_position(Duration::from_secs(5)));
        let mut places: Vec<_> = places.map(|place| place.map(|place| place.ahead)).collect();
        places.sort();
        if places == [Some(0), Some(1), Some(2)] {
            break;
        }
        assert!(Instant::now() < until, "{places:?}");
    }
    assert!(running.queue_position(Duration::from_secs(5)).is_none());
}
