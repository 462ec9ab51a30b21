//! Workers that crash, hang, are stopped, grow, or cannot begin.

use crate::engines::{FAULT, options};
use crate::harness::Test;
use crate::signals;
use crate::streams::{WAIT, read, seeded, start};
use exsa_core::{
    Event, FinishReason, Generator, Request, RequestError, SamplingParams, SubmitError, TokenStream,
};
use exsa_worker::{ExitCause, RestartPolicy, Timeouts, Worker, WorkerState};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("faults::a_panic_ends_the_process_after_its_streams", a_panic_ends_the_process_after_its_streams),
    ("faults::an_abort_is_told_by_its_signal", an_abort_is_told_by_its_signal),
    ("faults::a_pass_that_never_returns_is_ended", a_pass_that_never_returns_is_ended),
    ("faults::a_stopped_process_is_replaced", a_stopped_process_is_replaced),
    ("faults::all_complete_frames_come_before_the_end", all_complete_frames_come_before_the_end),
    ("faults::a_worker_that_grows_is_ended", a_worker_that_grows_is_ended),
    ("faults::a_model_that_cannot_be_loaded_fails", a_model_that_cannot_be_loaded_fails),
    ("faults::loading_without_progress_is_ended", loading_without_progress_is_ended),
    ("faults::progress_of_loading_is_told", progress_of_loading_is_told),
    ("faults::too_many_crashes_give_up", too_many_crashes_give_up),
    ("faults::a_restart_drains_first", a_restart_drains_first),
];

/// A request whose prompt has the faulty token.
pub fn poisoned() -> Request {
    Request::text(format!("a{}", char::from(FAULT))).max_tokens(3).sampling(SamplingParams::greedy())
}

pub fn lost(stream: TokenStream) -> String {
    match stream.complete() {
        Err(RequestError::Lost(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

pub fn until(what: &str, check: impl Fn() -> bool) {
    let until = Instant::now() + WAIT;
    while !check() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn a_panic_ends_the_process_after_its_streams() {
    let worker = start(options(json!({"fault": "panic"})));
    let pid = worker.status().pid.unwrap();
    let other = worker.submit(seeded("other", 4000)).unwrap();
    let Err(error) = worker.submit(poisoned()).unwrap().complete() else { panic!("it fails") };
    assert!(error.is_lost_engine(), "{error}");
    let Err(error) = other.complete() else { panic!("it fails") };
    assert!(error.is_lost_engine(), "{error}");
    until("the process ends", || worker.status().last_exit.is_some());
    assert_eq!(worker.status().last_exit, Some(ExitCause::Panicked));
    assert!(!signals::runs(pid));
    worker.wait_ready(WAIT).unwrap();
    assert_eq!(read(worker.submit(seeded("again", 3)).unwrap()).0.len(), 3);
}

fn an_abort_is_told_by_its_signal() {
    let worker = start(options(json!({"fault": "abort"})));
    let reason = lost(worker.submit(poisoned()).unwrap());
    assert_eq!(reason, "worker 0 of scripted was killed by signal 6");
    worker.wait_ready(WAIT).unwrap();
}

fn a_pass_that_never_returns_is_ended() {
    let timeouts = Timeouts::new().stall_min(Duration::from_millis(700));
    let worker = start(options(json!({"fault": "hang", "pace_us": 1000})).timeouts(timeouts));
    // The cost of a pass is known from now on.
    read(worker.submit(seeded("first", 200)).unwrap());
    let start = Instant::now();
    let reason = lost(worker.submit(poisoned()).unwrap());
    assert!(reason.starts_with("worker 0 of scripted was ended, as it made no progress for"), "{reason}");
    assert!(start.elapsed() > Duration::from_millis(600), "{:?}", start.elapsed());
    worker.wait_ready(WAIT).unwrap();
}

fn a_stopped_process_is_replaced() {
    let timeouts = Timeouts::new().stall_min(Duration::from_millis(700));
    let worker = start(options(json!({"pace_us": 1000})).timeouts(timeouts));
    let pid = worker.status().pid.unwrap();
    let mut stream = worker.submit(seeded("x", 4000)).unwrap();
    assert!(stream.next().is_some());
    signals::stop(pid);
    let reason = lost(stream);
    assert!(reason.contains("it gave no sign of life for"), "{reason}");
    until("the process ends", || !signals::runs(pid));
    worker.wait_ready(WAIT).unwrap();
    // Without a request as well.
    signals::stop(worker.status().pid.unwrap());
    until("it is replaced", || worker.status().restarts == 2);
    // While it loads, as soon as it has given a sign of life.
    let timeouts = Timeouts::new().stall_min(Duration::from_millis(700));
    let worker = Worker::start(options(json!({})).backend("hangs").timeouts(timeouts)).unwrap();
    until("it begins to load", || worker.status().sandbox.is_some());
    std::thread::sleep(Duration::from_millis(300));
    signals::stop(worker.status().pid.unwrap());
    until("it is replaced", || worker.status().restarts > 0);
    assert!(matches!(worker.status().last_exit, Some(ExitCause::Silent(_))), "{:?}", worker.status());
}

/// The host does not read while the worker sends and dies: what was sent must come.
fn all_complete_frames_come_before_the_end() {
    for kill_after in [1, 7, 50] {
        let worker = start(options(json!({"pace_us": 500})));
        let request = || seeded("x", 4000);
        let engine = crate::engines::in_process(&json!({}));
        let whole = engine.submit(request()).unwrap();
        let mut stream = worker.submit(request()).unwrap();
        let mut events = Vec::new();
        for _ in 0..kill_after {
            events.extend(stream.next());
        }
        signals::kill(worker.status().pid.unwrap());
        events.extend(&mut stream);
        let Some(Event::Finished(end)) = events.pop() else { panic!("no end") };
        assert!(matches!(end.reason, FinishReason::Failed(RequestError::Lost(_))), "{:?}", end.reason);
        assert!(events.len() >= kill_after);
        let expected: Vec<_> = whole.take(events.len()).collect();
        assert_eq!(events, expected, "a beginning of the answer, without a gap");
    }
}

fn a_worker_that_grows_is_ended() {
    let settings = options(json!({"grow_mib": 300})).backend("grows").memory_max(160 << 20);
    let worker = start(settings.timeouts(Timeouts::new().stall_min(WAIT)));
    until("it is ended", || worker.status().last_exit.is_some());
    let cause = worker.status().last_exit.unwrap();
    assert!(
        matches!(cause, ExitCause::Memory { used, limit } if used > limit && limit == 160 << 20),
        "{cause}"
    );
    assert!(cause.to_string().contains("of 160 MiB"), "{cause}");
    // At once more than the address space: the allocation itself fails.
    let settings = options(json!({"grow_at_once_mib": 2000})).backend("grows").memory_max(160 << 20);
    let worker = Worker::start(settings).unwrap();
    until("it is ended", || worker.status().last_exit.is_some());
    let cause = worker.status().last_exit.unwrap();
    assert!(matches!(cause, ExitCause::Signal(6) | ExitCause::Memory { .. }), "{cause}");
}

fn a_model_that_cannot_be_loaded_fails() {
    let worker = Worker::start(options(json!({})).backend("refuses")).unwrap();
    let error = worker.wait_ready(WAIT).unwrap_err();
    let text =
        "model 'refuses' has failed: worker 0 of refuses could not load its model: the model is not here";
    assert_eq!(error.to_string(), text);
    assert!(matches!(worker.submit(seeded("x", 1)), Err(SubmitError::ModelFailed { .. })));
    assert_eq!(worker.status().restarts, 0);
    let worker = Worker::start(options(json!({})).program("/nowhere/exsa-worker")).unwrap();
    worker.wait_ready(WAIT).unwrap_err();
    assert!(
        matches!(worker.status().state, WorkerState::Failed(ExitCause::Spawn(_))),
        "{:?}",
        worker.status()
    );
}

fn loading_without_progress_is_ended() {
    let timeouts = Timeouts::new().start(Duration::from_millis(600));
    let restart = RestartPolicy::new().restarts_max(0, Duration::from_secs(60));
    let worker =
        Worker::start(options(json!({})).backend("hangs").timeouts(timeouts).restart(restart)).unwrap();
    worker.wait_ready(WAIT).unwrap_err();
    let state = worker.status().state;
    assert!(matches!(state, WorkerState::Failed(ExitCause::StartTimeout(_))), "{state}");
}

fn progress_of_loading_is_told() {
    let shares = Arc::new(Mutex::new(Vec::new()));
    let seen = shares.clone();
    let worker = start(options(json!({})).backend("slow").on_change(move |status| match status.state {
        WorkerState::Starting(share) => seen.lock().unwrap().push(share),
        _ => seen.lock().unwrap().push(1.0),
    }));
    assert!(worker.is_ready());
    let shares = shares.lock().unwrap();
    assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]), "{shares:?}");
    assert!(shares.iter().any(|share| *share > 0.0 && *share < 1.0), "{shares:?}");
}

fn too_many_crashes_give_up() {
    let restart = RestartPolicy::new()
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .restarts_max(2, Duration::from_secs(600));
    let worker = start(options(json!({})).restart(restart));
    for _ in 0..2 {
        signals::kill(worker.status().pid.unwrap());
        until("it ends", || worker.status().state != WorkerState::Ready);
        worker.wait_ready(WAIT).unwrap();
    }
    signals::kill(worker.status().pid.unwrap());
    until("it is given up", || matches!(worker.status().state, WorkerState::Failed(ExitCause::Signal(9))));
    assert!(matches!(worker.submit(seeded("x", 1)), Err(SubmitError::ModelFailed { .. })));
    worker.restart();
    until("it begins anew", || worker.is_ready());
}

fn a_restart_drains_first() {
    let worker = start(options(json!({"pace_us": 2000})));
    let pid = worker.status().pid;
    let stream = worker.submit(seeded("x", 300)).unwrap();
    worker.restart();
    until("no more requests", || !worker.is_ready());
    assert!(matches!(
        worker.submit(seeded("y", 1)),
        Err(SubmitError::ShuttingDown | SubmitError::ModelLoading { .. })
    ));
    assert_eq!(read(stream).1.reason, FinishReason::MaxTokens);
    worker.wait_ready(WAIT).unwrap();
    assert_ne!(worker.status().pid, pid);
    worker.stop();
    until("it ends", || worker.status().state == WorkerState::Stopped);
    assert_eq!(worker.status().last_exit, Some(ExitCause::Code(0)));
}
