//! Streams of the candle backend on a pool whose workers fail all the time.

use crate::engines::{tiny, tiny_options};
use crate::harness::Test;
use crate::killing::stopped_late;
use crate::signals;
use crate::streams::{WAIT, read};
use crate::survive::{Fault, survive};
use exsa_core::sampler::Mirostat;
use exsa_core::{Constraint, Continued, Engine, EngineOptions, Event, Generator, Request, SamplingParams};
use exsa_pool::PoolOptions;
use exsa_worker::{WorkerPool, WorkerPoolOptions};
use serde_json::json;

pub const TESTS: &[Test] = &[
    ("candle::streams_survive_kills", || streams(Fault::Kill)),
    ("candle::streams_survive_stops", || streams(Fault::Stop)),
    ("candle::streams_survive_a_memory_limit", || streams(Fault::Memory)),
    ("candle::streams_survive_panics", || streams(Fault::Panic)),
    ("candle::streams_survive_aborts", || streams(Fault::Abort)),
    ("candle::streams_survive_garbage", || streams(Fault::Garbage)),
    ("candle::a_stop_string_survives_a_kill_within_it", a_stop_string_survives_a_kill_within_it),
];

fn streams(fault: Fault) {
    let seeded = |text: &str| Request::text(text).temperature(0.9).seed(5).max_tokens(120);
    let set = |set: fn(SamplingParams) -> SamplingParams| {
        let mut request = seeded("The little dog");
        request.sampling = set(request.sampling);
        request
    };
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["name", "age"]}"#;
    let mut requests = vec![
        ("seeded", seeded("Once upon a time")),
        ("greedy", set(|s| s.temperature(0.0))),
        ("penalties", set(|s| s.repetition_penalty(1.3).presence_penalty(0.4))),
        ("mirostat", set(|s| s.mirostat(Mirostat::V2).mirostat_tau(3.0))),
        ("a JSON schema", seeded("A person:").constraint(Constraint::json_schema(schema))),
        ("a stop string", seeded("Tom and Sam").stop("the park").stop(" was")),
    ];
    let model = tiny(&mut |_, _| true).unwrap();
    requests.push(("a long stop string", stopped_late(&model, seeded("Once upon a time")).0));
    survive(tiny_options(), model, &requests, fault);
}

/// Each kill comes while the worker holds text back, which the one that goes on has to hold back as well.
fn a_stop_string_survives_a_kill_within_it() {
    let model = tiny(&mut |_, _| true).unwrap();
    let request = Request::text("Once upon a time").temperature(0.9).seed(5).max_tokens(120);
    let (request, before) = stopped_late(&model, request);
    let alone = Engine::start(model, EngineOptions::default()).unwrap();
    let (expected, end) = read(alone.submit(request.clone()).unwrap());
    let text = |event: &Event| match event {
        Event::Token(token) => token.text.chars().count(),
        other => panic!("{other:?}"),
    };
    // Tokens after which all text before the stop string was released, and the rest is held back.
    let mut released = 0;
    let shown = expected
        .iter()
        .take_while(|event| {
            released += text(event);
            released < before
        })
        .count()
        + 1;
    let held = expected.len() - shown;
    assert!(held > 10, "{held} tokens are held back of {}", expected.len());
    let mut worker = tiny_options();
    // So slow that the worker is not far ahead of the reader.
    worker.host["pace_us"] = json!(20_000);
    let options = WorkerPoolOptions::new(worker).workers(2);
    let pool = WorkerPool::start(options.pool(PoolOptions::new().crashes_max(None))).unwrap();
    pool.wait_ready(WAIT).unwrap();
    for part in [1, 2, 3] {
        let mut stream = pool.submit(request.clone()).unwrap();
        let mut events: Vec<_> = (&mut stream).take(shown + held * part / 4).collect();
        pool.status()
            .iter()
            .filter(|status| status.open > 0)
            .filter_map(|status| status.pid)
            .for_each(signals::kill);
        let (rest, finished) = read(stream);
        events.extend(rest);
        assert_eq!(events, expected, "cut after {}", shown + held * part / 4);
        assert_eq!((&finished.reason, &finished.text), (&end.reason, &end.text));
        assert_eq!(finished.continued, Some(Continued::Identical));
        pool.wait_ready(WAIT).unwrap();
    }
}
