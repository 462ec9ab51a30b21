//! Odd streams and failures, as engines, proxies and networks produce them.

use crate::mock::{Exchange, Mock, Received};
use exsa_backend_remote::{Dialect, RemoteEngine, RemoteOptions};
use exsa_core::stream::{Completion, TokenStream};
use exsa_core::{Event, FinishReason, Generator, Priority, Request, RequestError, SubmitError};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MODELS: &str = r#"{"object": "list", "data": [{"id": "m", "object": "model"}]}"#;

/// A generic engine whose completions are answered by `handler`.
fn mock(handler: impl Fn(&Received, &mut Exchange<'_>) + Send + Sync + 'static) -> Mock {
    Mock::start(move |request, exchange| match request.path.as_str() {
        "/v1/models" => exchange.respond(200, "application/json", "", MODELS),
        _ => handler(request, exchange),
    })
}

fn options(mock: &Mock) -> RemoteOptions {
    RemoteOptions::new(&mock.url).dialect(Dialect::OpenAi).retry_delay(Duration::from_millis(10))
}

fn connect(mock: &Mock) -> RemoteEngine {
    RemoteEngine::connect(options(mock)).unwrap()
}

fn text(text: &str) -> Value {
    json!({ "choices": [{ "index": 0, "text": text, "finish_reason": null }] })
}

fn end(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "text": "", "finish_reason": reason }] })
}

fn usage() -> Value {
    let details = json!({ "cached_tokens": 3 });
    json!({ "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": details } })
}

fn submit(engine: &RemoteEngine) -> TokenStream {
    engine.submit(Request::text("prompt").max_tokens(16)).unwrap()
}

/// Sends `bytes` as the body of a stream, in the given pieces, and returns what the client makes of it.
fn transcript(pieces: Vec<Vec<u8>>) -> Result<Completion, RequestError> {
    let mock = mock(move |_, exchange| {
        exchange.begin_events();
        for piece in &pieces {
            exchange.chunk(piece);
        }
        exchange.raw(b"0\r\n\r\n");
    });
    submit(&connect(&mock)).complete()
}

/// A stream with everything that is legal: comments, carriage returns, data of several lines, a byte order
/// mark, characters of several bytes.
fn odd_stream() -> Vec<u8> {
    let mut bytes = "\u{feff}: hello\r\n\r\n".to_owned().into_bytes();
    bytes.extend(format!("data: {}\r\n\r\n", text("Häl")).bytes());
    bytes.extend(b": keep-alive\n\n:\n\nevent: message\nid: 7\n");
    bytes.extend(b"data: {\"choices\": [{\"index\": 0,\ndata: \"text\": \"lo \xF0\x9F\x99\x82\",\ndata: \"finish_reason\": null}]}\n\n");
    bytes.extend(format!("data: {}\n\ndata: {}\r\r", end("stop"), usage()).bytes());
    bytes.extend(b"data: [DONE]\n\n");
    bytes
}

fn check_odd(answer: Result<Completion, RequestError>) {
    let answer = answer.unwrap();
    assert_eq!((answer.text.as_str(), &answer.reason), ("Hällo 🙂", &FinishReason::EndOfGeneration));
    let usage = answer.usage;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens), (5, 2, 3));
}

#[test]
fn a_stream_may_be_split_at_every_byte() {
    // The prompt tells the place of the cut.
    let mock = mock(|request, exchange| {
        let (bytes, at): (_, usize) =
            (odd_stream(), request.body["prompt"].as_str().unwrap().parse().unwrap());
        exchange.begin_events();
        if at == 0 {
            bytes.chunks(1).for_each(|byte| _ = exchange.chunk(byte));
        } else {
            exchange.chunk(&bytes[..at]);
            exchange.stream.flush().unwrap();
            std::thread::yield_now();
            exchange.chunk(&bytes[at..]);
        }
        exchange.raw(b"0\r\n\r\n");
    });
    let engine = connect(&mock);
    for at in 0..odd_stream().len() {
        check_odd(engine.submit(Request::text(at.to_string()).max_tokens(16)).unwrap().complete());
    }
}

#[test]
fn done_or_the_usage_may_be_missing() {
    let event = |value: Value| format!("data: {value}\n\n").into_bytes();
    let answer = transcript(vec![event(text("a")), event(end("length"))]).unwrap();
    assert_eq!((answer.text.as_str(), answer.reason), ("a", FinishReason::MaxTokens));
    let answer = transcript(vec![event(text("a")), event(end("stop")), event(usage())]).unwrap();
    assert_eq!((answer.reason, answer.usage.prompt_tokens), (FinishReason::EndOfGeneration, 5));
    // The last line end is missing.
    let last = format!("data: {}", end("stop")).into_bytes();
    assert_eq!(transcript(vec![event(text("a")), last]).unwrap().text, "a");
    let answer = transcript(vec![event(text("a")), b"data: [DONE]\n\n".to_vec()]).unwrap();
    assert_eq!(answer.reason, FinishReason::EndOfGeneration);
}

#[test]
fn an_engine_that_keeps_the_stream_open_does_not_delay_the_end() {
    let mock = mock(|_, exchange| {
        exchange.begin_events();
        exchange.event(&text("a"));
        exchange.event(&end("stop"));
        exchange.wait_for_close();
    });
    let start = Instant::now();
    let answer = submit(&connect(&mock)).complete().unwrap();
    assert_eq!(answer.text, "a");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn failure(result: Result<Completion, RequestError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn errors_in_mid_stream_end_the_request_with_the_engines_message() {
    let event = |value: Value| format!("data: {value}\n\n").into_bytes();
    for (bad, message) in [
        (event(json!({ "error": { "message": "out of memory", "code": 500 } })), "out of memory"),
        (event(json!({ "object": "error", "message": "bad luck" })), "bad luck"),
        (b"event: error\ndata: {\"message\": \"named\"}\n\n".to_vec(), "named"),
        (b"data: {\"cho\n\n".to_vec(), "not JSON"),
        (event(json!({ "foo": 1 })), "without choices"),
        (event(end("abort")), "'abort'"),
    ] {
        let error = transcript(vec![event(text("a")), bad, event(text("b"))]).unwrap_err();
        assert!(matches!(&error, RequestError::Generator(text) if text.contains(message)), "{error:?}");
    }
}

/// Dynamo's frontend, after the worker of a stream was killed.
#[test]
fn a_routers_report_of_a_lost_worker_is_a_lost_engine() {
    let error =
        json!({ "message": "Service temporarily unavailable", "type": "service_unavailable", "code": 503 });
    let report = format!("data: {}\n\ndata: [DONE]\n\n", json!({ "error": error }));
    let error = transcript(vec![format!("data: {}\n\n", text("a")).into_bytes(), report.into_bytes()]);
    let error = error.unwrap_err();
    assert!(error.is_lost_engine() && error.to_string().contains("temporarily unavailable"), "{error:?}");
}

#[test]
fn a_lost_connection_is_told_from_other_failures() {
    // In mid-stream, with the body incomplete and complete.
    for complete in [false, true] {
        let mock = mock(move |_, exchange| {
            exchange.begin_events();
            exchange.event(&text("a"));
            if complete {
                exchange.raw(b"0\r\n\r\n");
            }
            exchange.stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let engine = connect(&mock);
        let mut stream = submit(&engine);
        let mut seen = String::new();
        let error = loop {
            match stream.next().unwrap() {
                Event::Token(token) => seen.push_str(&token.text),
                Event::Finished(finished) => break finished.reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(seen, "a");
        let FinishReason::Failed(error) = error else { panic!("{error:?}") };
        assert!(error.is_lost_engine() && error.to_string().contains("mid-stream"), "{error:?}");
        assert_eq!(mock.received().len(), 1, "never repeated after the first token");
    }
}

#[test]
fn refusals_for_the_moment_are_repeated_before_the_first_token() {
    for status in [429, 502, 503, 504] {
        let count = AtomicUsize::new(0);
        let mock = mock(move |_, exchange| {
            if count.fetch_add(1, Ordering::Relaxed) < 2 {
                exchange.json(status, &json!({ "error": { "message": "busy" } }));
            } else {
                exchange.begin_events();
                exchange.event(&text("a"));
                exchange.event(&end("stop"));
                exchange.done();
            }
        });
        assert_eq!(submit(&connect(&mock)).complete().unwrap().text, "a");
        assert_eq!(mock.received().len(), 3);
    }
    // The limit of repetitions, and refusals that last.
    for (status, requests) in [(503, 3), (400, 1), (401, 1), (404, 1), (500, 1)] {
        let mock = mock(move |_, exchange| exchange.json(status, &json!({ "detail": "no" })));
        let error = submit(&connect(&mock)).complete().unwrap_err();
        assert_eq!(error.is_lost_engine(), status == 503, "{error:?}");
        assert!(error.to_string().contains(&format!("status {status}: no")), "{error}");
        assert_eq!(mock.received().len(), requests, "{status}");
    }
}

#[test]
fn the_engines_retry_after_is_kept_to() {
    let count = AtomicUsize::new(0);
    let served = mock(move |_, exchange| {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            exchange.respond(429, "application/json", "retry-after: 1\r\n", "{}");
        } else {
            exchange.begin_events();
            exchange.event(&text("a"));
            exchange.event(&end("stop"));
            exchange.done();
        }
    });
    let start = Instant::now();
    assert_eq!(submit(&connect(&served)).complete().unwrap().text, "a");
    assert!(start.elapsed() >= Duration::from_secs(1));
    // A date, by the engine's own clock.
    let count = AtomicUsize::new(0);
    let served = mock(move |_, exchange| {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
            let headers = format!("{date}retry-after: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
            exchange.respond(503, "application/json", &headers, "{}");
        } else {
            exchange.begin_events();
            exchange.event(&text("b"));
            exchange.event(&end("stop"));
            exchange.done();
        }
    });
    let start = Instant::now();
    assert_eq!(submit(&connect(&served)).complete().unwrap().text, "b");
    assert!(start.elapsed() >= Duration::from_secs(1));
    // Longer than the client wants to wait.
    let mock = mock(|_, exchange| exchange.respond(429, "text/plain", "retry-after: 3600\r\n", "later"));
    let error = failure(submit(&connect(&mock)).complete());
    assert!(error.contains("429: later"), "{error}");
    assert_eq!(mock.received().len(), 1);
}

#[test]
fn a_connection_lost_before_the_first_token_is_made_again() {
    let count = AtomicUsize::new(0);
    let mock = mock(move |_, exchange| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        if n == 0 {
            exchange.stream.shutdown(std::net::Shutdown::Both).unwrap();
            return;
        }
        exchange.begin_events();
        if n == 1 {
            exchange.chunk(b": queued\n\n");
            exchange.stream.shutdown(std::net::Shutdown::Both).unwrap();
            return;
        }
        exchange.event(&text("a"));
        exchange.event(&end("stop"));
        exchange.done();
    });
    assert_eq!(submit(&connect(&mock)).complete().unwrap().text, "a");
    assert_eq!(mock.received().len(), 3);
}

#[test]
fn a_response_that_is_no_stream_is_refused() {
    let mock = mock(|_, exchange| exchange.respond(200, "text/html", "", "<html>login</html>"));
    let error = failure(submit(&connect(&mock)).complete());
    assert!(error.contains("text/html") && error.contains("login"), "{error}");
}

#[test]
fn oversize_events_end_the_request() {
    let mock = mock(|_, exchange| {
        exchange.begin_events();
        exchange.chunk(b"data: ");
        while exchange.chunk(&[b'x'; 4096]) {}
    });
    let engine = RemoteEngine::connect(options(&mock).response_bytes_max(100_000_usize)).unwrap();
    let error = failure(submit(&engine).complete());
    assert!(error.contains("100000 bytes"), "{error}");
}

#[test]
fn a_cancel_closes_the_connection_at_once() {
    // Blocked before the head of the response, and within the stream.
    for begun in [false, true] {
        let (closed, when) = std::sync::mpsc::channel();
        let closed = std::sync::Mutex::new(closed);
        let mock = mock(move |_, exchange| {
            if begun {
                exchange.begin_events();
                exchange.event(&text("a"));
            }
            exchange.wait_for_close();
            closed.lock().unwrap().send(Instant::now()).unwrap();
        });
        let engine = connect(&mock);
        let mut stream = submit(&engine);
        if begun {
            assert!(matches!(stream.next().unwrap(), Event::Token(_)));
        } else {
            while mock.received().is_empty() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let start = Instant::now();
        stream.cancel();
        let Event::Finished(finished) = stream.next().unwrap() else { panic!() };
        assert_eq!(finished.reason, FinishReason::Cancelled);
        assert!(start.elapsed() < Duration::from_millis(100), "the end waits for nothing");
        let closed = when.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(closed - start < Duration::from_millis(100), "{:?}", closed - start);
    }
}

#[test]
fn dropping_a_stream_or_the_engine_closes_connections() {
    for drop_engine in [false, true] {
        let (closed, when) = std::sync::mpsc::channel();
        let closed = std::sync::Mutex::new(closed);
        let mock = mock(move |_, exchange| {
            exchange.begin_events();
            exchange.event(&text("a"));
            exchange.wait_for_close();
            closed.lock().unwrap().send(()).unwrap();
        });
        let engine = connect(&mock);
        let mut stream = submit(&engine);
        assert!(matches!(stream.next().unwrap(), Event::Token(_)));
        if drop_engine {
            drop(engine);
            let Event::Finished(finished) = stream.next().unwrap() else { panic!() };
            assert_eq!(finished.reason, FinishReason::Cancelled);
        } else {
            drop(stream);
        }
        when.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn a_stop_string_found_here_ends_the_engines_work() {
    let (closed, when) = std::sync::mpsc::channel();
    let closed = std::sync::Mutex::new(closed);
    let mock = mock(move |request, exchange| {
        assert!(request.body.get("stop").is_none(), "stop strings are not sent");
        exchange.begin_events();
        for piece in ["one ST", "OP two", "three"] {
            exchange.event(&text(piece));
        }
        exchange.wait_for_close();
        closed.lock().unwrap().send(()).unwrap();
    });
    let engine = connect(&mock);
    let request = Request::text("prompt").max_tokens(16).stop("x").stop("STOP");
    let answer = engine.submit(request).unwrap().complete().unwrap();
    assert_eq!((answer.text.as_str(), answer.reason), ("one ", FinishReason::StopString(1)));
    when.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn a_reader_that_pauses_stops_the_reading_of_the_socket() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let total = 20_000;
    let mock = mock(move |_, exchange| {
        exchange.begin_events();
        // Each event fills a good part of a read.
        let piece = "x".repeat(1000);
        for _ in 0..total {
            exchange.event(&text(&piece));
            count.fetch_add(1, Ordering::Relaxed);
        }
        exchange.event(&end("stop"));
        exchange.done();
    });
    let engine = RemoteEngine::connect(options(&mock).stream_events_max(4_usize)).unwrap();
    let mut stream = submit(&engine);
    assert!(matches!(stream.next().unwrap(), Event::Token(_)));
    // The socket's buffers fill, then the engine waits.
    let mut before = usize::MAX;
    while sent.load(Ordering::Relaxed) != before {
        before = sent.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(before < total, "{before} events were taken from the socket");
    let mut tokens = 1;
    for event in &mut stream {
        match event {
            Event::Token(_) => tokens += 1,
            Event::Finished(finished) => assert_eq!(finished.reason, FinishReason::EndOfGeneration),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tokens, total);
}

#[test]
fn a_paused_stream_is_not_idle_and_can_be_cancelled() {
    let mock = mock(|_, exchange| {
        exchange.begin_events();
        for _ in 0..10 {
            exchange.event(&text("a"));
        }
        exchange.wait_for_close();
    });
    let options = options(&mock).stream_events_max(1_usize).idle_timeout(Duration::from_millis(150));
    let engine = RemoteEngine::connect(options).unwrap();
    let mut stream = submit(&engine);
    std::thread::sleep(Duration::from_millis(600));
    assert!(matches!(stream.next().unwrap(), Event::Token(_)));
    stream.cancel();
    let last = stream.last().unwrap();
    assert!(matches!(last, Event::Finished(finished) if finished.reason == FinishReason::Cancelled));
}

#[test]
fn silent_engines_end_by_the_time_limits() {
    // No response at all.
    let silent = mock(|_, exchange| exchange.wait_for_close());
    let limited = options(&silent).first_byte_timeout(Duration::from_millis(150));
    let error = submit(&RemoteEngine::connect(limited).unwrap()).complete().unwrap_err();
    assert!(error.is_lost_engine() && error.to_string().contains("150ms"), "{error:?}");
    assert_eq!(silent.received().len(), 1, "a slow engine is not asked twice");
    // A response that stops; comments count as life.
    let stops = mock(|_, exchange| {
        exchange.begin_events();
        exchange.event(&text("a"));
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(100));
            exchange.chunk(b": keep-alive\n\n");
        }
        exchange.event(&text("b"));
        exchange.wait_for_close();
    });
    let limited = options(&stops).idle_timeout(Duration::from_millis(250));
    let engine = RemoteEngine::connect(limited).unwrap();
    let mut stream = submit(&engine);
    let mut seen = String::new();
    for event in &mut stream {
        if let Event::Token(token) = event {
            seen.push_str(&token.text);
        }
    }
    assert_eq!(seen, "ab");
    let reason = &stream.finished().unwrap().reason;
    assert!(matches!(reason, FinishReason::Failed(error) if error.is_lost_engine()), "{reason:?}");
}

#[test]
fn deadlines_of_requests_hold() {
    let slow = mock(|_, exchange| {
        exchange.begin_events();
        exchange.chunk(b": queued\n\n");
        exchange.wait_for_close();
    });
    let engine = connect(&slow);
    let request = Request::text("prompt").max_tokens(4);
    let limit = Duration::from_millis(100);
    let early = request.clone().first_token_timeout(limit);
    let reason = |stream: TokenStream| match stream.last().unwrap() {
        Event::Finished(finished) => finished.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(engine.submit(early).unwrap()), FinishReason::FirstTokenTimeout);
    assert_eq!(reason(engine.submit(request.clone().timeout(limit)).unwrap()), FinishReason::Deadline);
    // With a token, only the deadline counts.
    let drips = mock(|_, exchange| {
        exchange.begin_events();
        while exchange.event(&text("a")) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let engine = connect(&drips);
    let both = request.first_token_timeout(Duration::from_secs(2)).timeout(Duration::from_millis(2500));
    let mut stream = engine.submit(both).unwrap();
    let tokens = stream.by_ref().filter(|event| matches!(event, Event::Token(_))).count();
    assert!(tokens > 10, "{tokens}");
    assert_eq!(stream.finished().unwrap().reason, FinishReason::Deadline);
    assert_eq!(engine.stats().finished, 1);
}

#[test]
fn requests_beyond_the_limit_wait_by_priority() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let mock = mock(move |_, exchange| {
        gate.lock().unwrap().recv().unwrap();
        exchange.begin_events();
        exchange.event(&text("a"));
        exchange.event(&end("stop"));
        exchange.done();
    });
    let engine = RemoteEngine::connect(options(&mock).in_flight_max(1_usize).queue_max(3_usize)).unwrap();
    let request = |prompt: &str, priority| Request::text(prompt).max_tokens(4).priority(priority);
    let first = engine.submit(request("first", Priority::Batch)).unwrap();
    let batch = engine.submit(request("batch", Priority::Batch)).unwrap();
    let urgent = engine.submit(request("urgent", Priority::Interactive)).unwrap();
    let gone = engine.submit(request("gone", Priority::Normal)).unwrap();
    let position = batch.queue_position(Duration::from_secs(5)).unwrap();
    assert_eq!(position.ahead, 2);
    let refused = engine.submit(request("too many", Priority::Normal)).unwrap_err();
    assert!(
        matches!(refused, SubmitError::QueueFull { waiting: 3, limit: 3, class_depth: 1, .. }),
        "{refused:?}"
    );
    gone.cancel();
    assert_eq!(engine.stats().scheduler.waiting, 2);
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    for stream in [first, urgent, batch, gone] {
        let finished = stream.last();
        assert!(matches!(finished, Some(Event::Finished(_))));
    }
    let prompts: Vec<_> = mock.received().into_iter().map(|it| it.body["prompt"].clone()).collect();
    assert_eq!(prompts, ["first", "urgent", "batch"]);
}

#[test]
fn connections_are_used_again() {
    let mock = mock(|_, exchange| {
        exchange.begin_events();
        exchange.event(&text("a"));
        exchange.event(&end("stop"));
        exchange.done();
    });
    let engine = connect(&mock);
    let before = mock.connections();
    for _ in 0..5 {
        submit(&engine).complete().unwrap();
        // The thread gives the connection back just after the end.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(mock.connections() - before, 1);
}

#[test]
fn secrets_are_sent_and_never_shown() {
    let mock = mock(|_, exchange| exchange.json(401, &json!({ "error": { "message": "who are you?" } })));
    let options = options(&mock).api_key("top-secret").header("x-team", "hidden");
    let engine = RemoteEngine::connect(options).unwrap();
    let error = failure(submit(&engine).complete());
    let request = &mock.received()[0];
    assert_eq!(request.header("authorization"), Some("Bearer top-secret"));
    assert_eq!(request.header("x-team"), Some("hidden"));
    for shown in [error, format!("{engine:?}"), format!("{:?}", engine.options())] {
        assert!(!shown.contains("top-secret") && !shown.contains("hidden"), "{shown}");
    }
}

#[test]
fn engines_that_are_not_there_are_reported() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = RemoteEngine::connect(RemoteOptions::new(&url)).unwrap_err().to_string();
    assert!(error.contains(&url), "{error}");
    let mock = mock(|_, exchange| exchange.json(404, &json!({})));
    let error = RemoteEngine::connect(options(&mock).model(Some("other".to_owned()))).unwrap_err();
    assert_eq!(error.to_string(), "the engine has no model 'other'; available: m");
    let engine = connect(&mock);
    let refused = engine.submit(Request::text("a").model("other")).unwrap_err();
    assert!(matches!(refused, SubmitError::UnknownModel { .. }));
    for (url, problem) in [("nowhere", "http://"), ("ftp://a", "http://"), ("http://a:b@c", "user")] {
        let error = RemoteEngine::connect(RemoteOptions::new(url)).unwrap_err().to_string();
        assert!(error.contains(problem), "{url}: {error}");
    }
}
