//! Streams of a worker: the same as those of the engine in process.

use crate::engines::{FAULT, in_process, options};
#[cfg(feature = "candle")]
use crate::engines::{tiny, tiny_options};
use crate::harness::Test;
use exsa_core::stream::Finished;
use exsa_core::{Event, FinishReason, Generator, Request, RequestError, TokenStream};
use exsa_worker::Worker;
use serde_json::json;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("streams::a_worker_answers_as_the_engine_in_process", a_worker_answers_as_the_engine_in_process),
    #[cfg(feature = "candle")]
    ("streams::candle_answers_as_in_process", candle_answers_as_in_process),
    ("streams::kill_ends_streams_with_the_cause", kill_ends_streams_with_the_cause),
];

pub const WAIT: Duration = Duration::from_secs(60);

pub fn start(options: exsa_worker::WorkerOptions) -> Worker {
    let worker = Worker::start(options).unwrap();
    worker.wait_ready(WAIT).unwrap_or_else(|error| panic!("{error}: {:?}", worker.status()));
    worker
}

/// Events but the last, and the last without its times and drafts.
pub fn read(stream: TokenStream) -> (Vec<Event>, Finished) {
    let mut events: Vec<_> = stream.collect();
    let Some(Event::Finished(mut finished)) = events.pop() else { panic!("no end: {events:?}") };
    let usage = &mut finished.usage;
    (usage.queue_time, usage.time_to_first_token, usage.cached_tokens) = (None, None, 0);
    usage.total_time = Duration::ZERO;
    // Drafts depend on measured costs.
    *usage.drafts = Default::default();
    (events, finished)
}

pub fn seeded(text: &str, tokens: usize) -> Request {
    let mut request = Request::text(text).temperature(1.0).seed(7).ignore_eos(true).max_tokens(tokens);
    // Only a prompt shall trigger a fault.
    request.sampling.logit_bias.push((FAULT.into(), f32::NEG_INFINITY));
    request
}

fn a_worker_answers_as_the_engine_in_process() {
    let worker = start(options(json!({})));
    let engine = in_process(&json!({}));
    for request in [
        seeded("some prompt", 64),
        Request::text("x")
            .max_tokens(20)
            .sampling(exsa_core::SamplingParams::greedy().seed(1).logprobs(true).top_logprobs(3)),
        seeded("several", 12).n(3),
        seeded("the best", 12).n(2).best_of(4),
        seeded("of the prompt too", 4).prompt_logprobs(2),
    ] {
        let several = request.n > 1;
        let (mut a, end_a) = read(worker.submit(request.clone()).unwrap());
        let (mut b, end_b) = read(engine.submit(request).unwrap());
        if several {
            // Answers interleave as they come.
            let key = |event: &Event| match event {
                Event::Token(token) => token.index,
                Event::AnswerFinished(end) => end.index,
                _ => usize::MAX,
            };
            a.sort_by_key(key);
            b.sort_by_key(key);
        }
        assert_eq!(a, b);
        assert_eq!(end_a, end_b);
    }
    assert_eq!(worker.models()[0].name, engine.models()[0].name);
    assert_eq!(
        worker.count_tokens(&Request::text("four")).unwrap(),
        engine.count_tokens(&Request::text("four")).unwrap()
    );
    assert_eq!(worker.continuation(None), engine.continuation(None));
}

#[cfg(feature = "candle")]
fn candle_answers_as_in_process() {
    use exsa_core::{Engine, EngineOptions};
    let worker = start(tiny_options());
    let engine = Engine::start(tiny(&mut |_, _| true).unwrap(), EngineOptions::default()).unwrap();
    let request = Request::text("Once upon a time").temperature(0.8).seed(3).max_tokens(24);
    assert_eq!(read(worker.submit(request.clone()).unwrap()), read(engine.submit(request).unwrap()));
}

fn kill_ends_streams_with_the_cause() {
    let worker = start(options(json!({"pace_us": 2000})));
    let mut stream = worker.submit(seeded("a long answer", 10_000)).unwrap();
    for _ in 0..5 {
        assert!(matches!(stream.next(), Some(Event::Token(_))));
    }
    let pid = worker.status().pid.unwrap();
    crate::signals::kill(pid);
    let Err(RequestError::Lost(reason)) = stream.complete() else { panic!("no loss") };
    assert_eq!(reason, "worker 0 of scripted was killed by signal 9");
    worker.wait_ready(WAIT).unwrap();
    assert_eq!(worker.status().restarts, 1);
    let (events, finished) = read(worker.submit(seeded("again", 5)).unwrap());
    assert_eq!((events.len(), finished.reason), (5, FinishReason::MaxTokens));
}
