//! Workers and hosts that break the protocol.

use crate::engines::{in_process, options};
use crate::harness::Test;
use crate::signals;
use crate::streams::{WAIT, seeded, start};
use exsa_core::stream::{Finished, Token};
use exsa_core::{EngineOptions, Event, FinishReason, Generator, RequestError};
use exsa_worker::frame::{
    Beat, Bounded, FRAME_MAX, FrameReader, FromWorker, Hello, ToWorker, WireEvent, encode,
};
use exsa_worker::{ExitCause, RestartPolicy, SandboxOptions, Worker};
use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("hostile::a_worker_that_breaks_the_protocol_is_ended", a_worker_that_breaks_the_protocol_is_ended),
    ("hostile::a_worker_that_floods_is_ended", a_worker_that_floods_is_ended),
    ("hostile::a_host_that_breaks_the_protocol_is_refused", a_host_that_breaks_the_protocol_is_refused),
    ("hostile::a_request_that_is_none_is_refused", a_request_that_is_none_is_refused),
];

/// A worker that does what `mode` says: the process of another program, as far as the host knows.
pub fn worker(mode: &str) {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut input = FrameReader::new(socket.try_clone().unwrap());
    let mut to_host = socket.try_clone().unwrap();
    let mut send = |message: FromWorker| {
        let mut frame = Vec::new();
        encode(&message, &mut frame).unwrap();
        // The host may have ended the connection.
        to_host.write_all(&frame).is_ok()
    };
    if mode == "garbage" {
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let _ = socket.write_all(&bytes);
        std::thread::sleep(Duration::from_secs(600));
    }
    if mode == "early" {
        send(FromWorker::Beat(Beat::default()));
        std::thread::sleep(Duration::from_secs(600));
    }
    send(FromWorker::Hello(Hello::new()));
    if mode == "facts" {
        let info = json!({"model": {"n_vocab": 1_usize << 60}}).to_string();
        send(FromWorker::Ready { info });
        std::thread::sleep(Duration::from_secs(600));
    }
    let info = serde_json::to_string(in_process(&json!({})).info()).unwrap();
    send(FromWorker::Ready { info: info.clone() });
    let id = loop {
        match input.read::<ToWorker>() {
            Ok(Some(ToWorker::Submit { id, .. })) => break id,
            Ok(Some(_)) => {}
            _ => return,
        }
    };
    let events =
        |id, event: Event| FromWorker::Events { id, events: Bounded(vec![WireEvent::new(event).unwrap()]) };
    let token = |token: u32| Event::Token(Token::new(token, "x"));
    send(events(id, token(1)));
    match mode {
        "unknown" => _ = send(events(id + 1, token(1))),
        "vocabulary" => _ = send(events(id, token(1 << 20))),
        "index" => _ = send(events(id, Event::Token(Token::new(1, "x").index(1)))),
        "kind" => _ = send(FromWorker::Embedded { id, output: Ok((Bounded(Vec::new()), "{}".into())) }),
        "twice" => _ = send(FromWorker::Ready { info }),
        "empty" => _ = send(FromWorker::Events { id, events: Bounded(Vec::new()) }),
        "report" => _ = send(FromWorker::Refused { id, error: "no JSON".into() }),
        "long" => _ = socket.write_all(&(FRAME_MAX as u32 + 1).to_le_bytes()),
        "closed" => _ = socket.shutdown(std::net::Shutdown::Both),
        "ended" => {
            send(events(id, Event::Finished(Finished::new(FinishReason::MaxTokens))));
            send(events(id, token(1)));
        }
        "flood" => while send(events(id, token(1))) {},
        "cut" => {
            _ = socket.write_all(&[200, 0, 0, 0, 1, 2, 3]);
            std::process::exit(3);
        }
        other => panic!("{other}"),
    }
    std::thread::sleep(Duration::from_secs(600));
}

static CONNECTION: OnceLock<UnixStream> = OnceLock::new();

/// Keeps a second end of a worker's connection, before the worker has it.
pub fn keep_connection() {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    CONNECTION.set(socket).unwrap();
}

/// Breaks the protocol on the connection that was kept, between the frames of the worker, in a way that
/// `random` chooses.
pub fn send_garbage(random: u64) {
    let bytes = match random % 4 {
        // No frames.
        0 => {
            (0..10_000_u64).map(|i| ((random ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
        }
        1 => (FRAME_MAX as u32 + 1).to_le_bytes().to_vec(),
        // A length whose bytes never come: the frames that follow are taken for them.
        2 => (FRAME_MAX as u32).to_le_bytes().to_vec(),
        // A frame about a request that is not open.
        _ => {
            let event = WireEvent::new(Event::Token(Token::new(1, "x"))).unwrap();
            let mut frame = Vec::new();
            encode(&FromWorker::Events { id: u64::MAX, events: Bounded(vec![event]) }, &mut frame).unwrap();
            frame
        }
    };
    let mut connection = CONNECTION.get().unwrap();
    // The host may have ended the connection.
    let _ = connection.write_all(&bytes);
}

fn hostile(mode: &str) -> exsa_worker::WorkerOptions {
    options(json!({}))
        .environment("EXSA_TEST_ROLE", format!("hostile {mode}"))
        .restart(RestartPolicy::new().restarts_max(0, Duration::from_secs(600)))
}

fn a_worker_that_breaks_the_protocol_is_ended() {
    for mode in ["garbage", "early", "facts"] {
        let worker = Worker::start(hostile(mode)).unwrap();
        worker.wait_ready(WAIT).unwrap_err();
        let cause = worker.status().last_exit.unwrap();
        assert!(matches!(cause, ExitCause::Protocol(_) | ExitCause::Load(_)), "{mode}: {cause}");
    }
    let modes = [
        "unknown",
        "vocabulary",
        "index",
        "kind",
        "twice",
        "empty",
        "report",
        "long",
        "closed",
        "ended",
        "cut",
    ];
    for mode in modes {
        let worker = start(hostile(mode));
        let pid = worker.status().pid.unwrap();
        let mut stream = worker.submit(seeded("x", 10)).unwrap();
        assert!(matches!(stream.next(), Some(Event::Token(_))), "{mode}");
        let end = stream.find_map(|event| match event {
            Event::Finished(end) => Some(end.reason),
            _ => None,
        });
        let lost = matches!(&end, Some(FinishReason::Failed(RequestError::Lost(_))));
        assert!(lost || mode == "ended", "{mode}: {end:?}");
        let until = Instant::now() + WAIT;
        while signals::runs(pid) || worker.status().last_exit.is_none() {
            assert!(Instant::now() < until, "{mode}: it is not ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        let cause = worker.status().last_exit.unwrap();
        match mode {
            "cut" => assert_eq!(cause, ExitCause::Code(3)),
            _ => assert!(matches!(cause, ExitCause::Protocol(_)), "{mode}: {cause}"),
        }
    }
}

fn a_worker_that_floods_is_ended() {
    let mut settings = hostile("flood");
    settings.engine = EngineOptions::default().stream_events_max(16);
    let worker = start(settings);
    let stream = worker.submit(seeded("x", 10)).unwrap();
    let until = Instant::now() + WAIT;
    while worker.status().last_exit.is_none() {
        assert!(Instant::now() < until, "it is not ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let events = stream.count();
    assert!(events < 70_000, "{events} events in the host's memory");
}

/// A worker whose host is this function's caller.
fn bare_worker() -> (Child, UnixStream) {
    let (host, worker) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exsa-worker", &std::process::id().to_string()])
        .stdin(Stdio::from(OwnedFd::from(worker)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, host)
}

fn a_host_that_breaks_the_protocol_is_refused() {
    let setup = || {
        let setup = json!({"worker": 0, "backend": "scripted", "model": null, "engine": EngineOptions::default(),
            "host": {}, "sandbox": SandboxOptions::new(), "memory_max": null});
        ToWorker::Setup(setup.to_string())
    };
    let hello = || ToWorker::Hello(Hello::new());
    let submit = |id| ToWorker::Submit { id, request: json!({"prompt": "x", "max_tokens": 9}).to_string() };
    let frames = |messages: &[ToWorker]| {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes).unwrap());
        bytes
    };
    let mut version = postcard::to_stdvec(&hello()).unwrap();
    // Magic is a varint of five bytes after the variant.
    version[6] = 99;
    let version = [&(version.len() as u32).to_le_bytes()[..], &version].concat();
    let garbage: Vec<u8> = (0..10_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    let cases = [
        ("nothing", Vec::new()),
        ("garbage", garbage.clone()),
        ("a long frame", (FRAME_MAX as u32 + 1).to_le_bytes().to_vec()),
        ("no greeting", frames(&[setup()])),
        ("another version", version),
        ("no setup", frames(&[hello(), submit(1)])),
        ("a setup that is none", frames(&[hello(), ToWorker::Setup("{}".into())])),
        ("a second greeting", frames(&[hello(), setup(), hello()])),
        ("an id twice", frames(&[hello(), setup()])),
        ("garbage after the start", frames(&[hello(), setup()])),
    ];
    for (name, bytes) in cases {
        let (mut child, mut socket) = bare_worker();
        socket.write_all(&bytes).unwrap();
        if name == "an id twice" || name == "garbage after the start" {
            let mut reader = FrameReader::new(socket.try_clone().unwrap());
            while !matches!(reader.read().unwrap(), Some(FromWorker::Ready { .. })) {}
            // An id may come again once its request has ended: many times in a row it does not.
            let again: Vec<_> = (0..500).map(|_| submit(1)).collect();
            let more = if name == "an id twice" { frames(&again) } else { garbage.clone() };
            // The worker may end before it has read all.
            let _ = socket.write_all(&more);
        }
        if name == "nothing" {
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
        let until = Instant::now() + WAIT;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "{name}: the worker goes on");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Whatever it sent, its connection is closed.
        let _ = socket.read_to_end(&mut Vec::new());
    }
}

fn a_request_that_is_none_is_refused() {
    let (mut child, mut socket) = bare_worker();
    let setup = json!({"worker": 0, "backend": "scripted", "model": null, "engine": EngineOptions::default(),
        "host": {}, "sandbox": SandboxOptions::new(), "memory_max": null});
    let requests = [
        "",
        "[]",
        "{}",
        r#"{"prompt": "x", "temperature": -5}"#,
        r#"{"prompt": [4000000000]}"#,
        r#"{"prompt": "x", "grammar": "root ::= ("}"#,
    ];
    let mut bytes = Vec::new();
    encode(&ToWorker::Hello(Hello::new()), &mut bytes).unwrap();
    encode(&ToWorker::Setup(setup.to_string()), &mut bytes).unwrap();
    socket.write_all(&bytes).unwrap();
    let mut reader = FrameReader::new(socket.try_clone().unwrap());
    while !matches!(reader.read().unwrap(), Some(FromWorker::Ready { .. })) {}
    bytes.clear();
    for (id, request) in requests.iter().enumerate() {
        encode(&ToWorker::Submit { id: id as u64, request: (*request).into() }, &mut bytes).unwrap();
    }
    // Of requests that are not there.
    for message in [
        ToWorker::Cancel { id: 99 },
        ToWorker::Pause { id: 99 },
        ToWorker::Drained { id: 99 },
        ToWorker::Position { id: 99 },
    ] {
        encode(&message, &mut bytes).unwrap();
    }
    let last = json!({"prompt": "x", "max_tokens": 3, "ignore_eos": true}).to_string();
    encode(&ToWorker::Submit { id: 50, request: last }, &mut bytes).unwrap();
    socket.write_all(&bytes).unwrap();
    let (mut refused, mut tokens, mut ended) = (Vec::new(), 0, false);
    while refused.len() < requests.len() || !ended {
        match reader.read().unwrap().unwrap() {
            FromWorker::Refused { id, error } => {
                assert!(error.contains("message"), "{error}");
                refused.push(id);
            }
            FromWorker::Events { id: 50, events } => {
                tokens += events.0.iter().filter(|event| matches!(event, WireEvent::Token(_))).count();
                ended |= events.0.iter().any(|event| matches!(event, WireEvent::Finished(_)));
            }
            FromWorker::Beat(_) | FromWorker::Position { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tokens, 3);
    drop(socket);
    drop(reader);
    // The worker ends with its connection, whatever it does.
    let until = Instant::now() + WAIT;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(2));
    }
}
