//! Pools of workers: poisonous prompts, rolling replacement, workers that are all given up.

use crate::engines::options;
use crate::harness::Test;
use crate::signals;
use crate::streams::{WAIT, seeded};
use crate::survive::WORKERS;
use exsa_core::{FinishReason, Generator, Request, RequestError, SamplingParams, SubmitError};
use exsa_pool::PoolOptions;
use exsa_worker::{RestartPolicy, WorkerPool, WorkerPoolOptions, WorkerState};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("pools::a_poisonous_prompt_ends_few_workers", a_poisonous_prompt_ends_few_workers),
    ("pools::a_panic_is_one_crash_for_each_stream", a_panic_is_one_crash_for_each_stream),
    ("pools::workers_are_replaced_one_by_one", workers_are_replaced_one_by_one),
    ("pools::requests_fail_once_all_workers_are_given_up", requests_fail_once_all_workers_are_given_up),
];

fn a_poisonous_prompt_ends_few_workers() {
    let options =
        WorkerPoolOptions::new(options(json!({"fault": "abort", "pace_us": 1000}))).workers(WORKERS);
    let pool = WorkerPool::start(options).unwrap();
    pool.wait_ready(WAIT).unwrap();
    let others: Vec<_> = (0..4).map(|i| pool.submit(seeded(&format!("other {i}"), 400)).unwrap()).collect();
    let poisoned = Request::text("a!").max_tokens(3).sampling(SamplingParams::greedy());
    let error = pool.submit(poisoned).unwrap().complete().unwrap_err();
    assert!(
        matches!(&error, RequestError::Crashed { crashes: 2, reason } if reason.contains("signal 6")),
        "{error}"
    );
    for stream in others {
        assert_eq!(stream.complete().unwrap().reason, FinishReason::MaxTokens);
    }
    let restarts: u64 = pool.status().iter().map(|status| status.restarts).sum();
    assert!(restarts <= 2, "{restarts}");
}

/// A worker whose engine has panicked, and whose process has not ended yet, gets no stream again.
fn a_panic_is_one_crash_for_each_stream() {
    let restart = RestartPolicy::new().backoff(WAIT, WAIT);
    let host = json!({"pace_us": 1000, "first_panics_at": 200});
    let pool = WorkerPool::start(WorkerPoolOptions::new(options(host).restart(restart)).workers(2)).unwrap();
    pool.wait_ready(WAIT).unwrap();
    let streams: Vec<_> = (0..16).map(|i| pool.submit(seeded(&i.to_string(), 500)).unwrap()).collect();
    for stream in streams {
        assert_eq!(stream.complete().unwrap().reason, FinishReason::MaxTokens);
    }
    let members = pool.pool().members();
    assert!((1..=16).contains(&members[0].lost) && members[1].lost == 0, "{members:?}");
}

fn workers_are_replaced_one_by_one() {
    let pool =
        WorkerPool::start(WorkerPoolOptions::new(options(json!({"pace_us": 500}))).workers(WORKERS)).unwrap();
    pool.wait_ready(WAIT).unwrap();
    let before: Vec<_> = pool.status().iter().map(|status| status.pid).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|i| {
                let (pool, done) = (&pool, &done);
                scope.spawn(move || {
                    let mut answers = 0;
                    while !done.load(Ordering::Relaxed) {
                        let request = seeded(&format!("{i}"), 60);
                        let answer = pool.submit(request).unwrap().complete().unwrap();
                        assert_eq!(answer.reason, FinishReason::MaxTokens);
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        let replaced = pool.replace(WAIT);
        done.store(true, Ordering::Relaxed);
        let answers: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(answers > 0);
        replaced.unwrap();
    });
    let after = pool.status();
    for (status, before) in after.iter().zip(before) {
        assert_ne!(status.pid, before);
        assert_eq!(status.restarts, 1);
    }
    assert!(pool.pool().members().iter().all(|member| member.lost == 0), "no stream was cut");
}

fn requests_fail_once_all_workers_are_given_up() {
    let restart = RestartPolicy::new()
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .restarts_max(1, Duration::from_secs(600));
    let worker = options(json!({"pace_us": 1000})).restart(restart);
    let options = WorkerPoolOptions::new(worker).workers(2).in_flight_max(1);
    let pool = WorkerPool::start(options.pool(PoolOptions::new().crashes_max(None))).unwrap();
    pool.wait_ready(WAIT).unwrap();
    // Two run, and the rest waits.
    let streams: Vec<_> = (0..6).map(|i| pool.submit(seeded(&i.to_string(), 100_000)).unwrap()).collect();
    let failed =
        || pool.status().iter().filter(|status| matches!(status.state, WorkerState::Failed(_))).count();
    let until = Instant::now() + WAIT;
    while failed() < 2 {
        assert!(Instant::now() < until, "{:?}", pool.status());
        pool.status().iter().filter_map(|status| status.pid).for_each(signals::kill);
        std::thread::sleep(Duration::from_millis(20));
    }
    for stream in streams {
        match stream.complete() {
            Err(RequestError::Lost(reason) | RequestError::Unavailable(reason)) => {
                assert_eq!(
                    reason,
                    "model 'scripted' has failed: worker 0 of scripted was killed by signal 9"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(pool.submit(seeded("x", 1)), Err(SubmitError::ModelFailed { .. })));
    assert!(pool.pool().members().iter().all(|member| member.failed.is_some()));
    pool.workers()[1].restart();
    pool.workers()[1].wait_ready(WAIT).unwrap();
    assert_eq!(pool.submit(seeded("x", 3)).unwrap().complete().unwrap().reason, FinishReason::MaxTokens);
}
