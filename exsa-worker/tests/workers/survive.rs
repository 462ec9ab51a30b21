//! Streams on a pool whose workers fail all the time, compared with the same requests run without faults.

use crate::signals;
use crate::streams::WAIT;
use exsa_core::backend::Model;
use exsa_core::{Continued, Engine, EngineOptions, Event, FinishReason, Generator, Request, TokenStream};
use exsa_pool::{BreakerOptions, PoolOptions};
use exsa_worker::{RestartPolicy, Timeouts, WorkerOptions, WorkerPool, WorkerPoolOptions, WorkerState};
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const STREAMS: usize = 8;
pub const WORKERS: usize = 3;
/// Time between two faults in the mean.
const EVERY: Duration = Duration::from_millis(300);

/// The way in which workers fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to a random worker.
    Kill,
    /// SIGSTOP to a random worker.
    Stop,
    /// Memory beyond the worker's limit.
    Memory,
    /// A panic in a forward pass.
    Panic,
    /// The end of the process in a forward pass.
    Abort,
    /// Bytes on the connection that are no frame, or a frame that is not allowed.
    Garbage,
}

impl Fault {
    /// Settings under which workers fail in this way. Those that break themselves do so after a random time,
    /// so that one of the pool's fails every 300 ms in the mean.
    fn prepare(self, mut worker: WorkerOptions) -> WorkerOptions {
        let breaks = match self {
            Self::Kill => return worker,
            Self::Stop => return worker.timeouts(Timeouts::new().stall_min(Duration::from_millis(500))),
            Self::Memory => "grow",
            Self::Panic => "panic",
            Self::Abort => "abort",
            Self::Garbage => "garbage",
        };
        worker.host["breaks"] = json!(breaks);
        worker.host["breaks_within_ms"] = json!(2 * EVERY.as_millis() as usize * WORKERS);
        match self {
            Self::Memory => worker.memory_max(256 << 20),
            // A length whose bytes never come is noticed by the silence that follows.
            Self::Garbage => worker
                .environment("EXSA_TEST_ROLE", "keeps its connection")
                .timeouts(Timeouts::new().stall_min(Duration::from_secs(1))),
            _ => worker,
        }
    }

    /// Lets a process fail that does not do so by itself.
    fn strike(self, pid: u32) {
        match self {
            Self::Kill => signals::kill(pid),
            Self::Stop => signals::stop(pid),
            Self::Memory | Self::Panic | Self::Abort | Self::Garbage => {}
        }
    }
}

/// Text and tool calls of an answer.
type Seen = (String, BTreeMap<usize, String>, FinishReason);

fn collect(stream: TokenStream, counts: &Counts) -> Seen {
    let (mut text, mut calls) = (String::new(), BTreeMap::<usize, String>::new());
    for event in stream {
        counts.events.fetch_add(1, Ordering::Relaxed);
        match event {
            Event::Token(token) => {
                text += &format!("{}{}{:?};", token.text, token.id.unwrap_or(0), token.logprob)
            }
            Event::Reasoning(token) => text += &format!("r{}", token.text),
            Event::ToolCall(delta) => {
                let call = calls.entry(delta.call).or_default();
                *call += &format!(
                    "{}{}{}",
                    delta.id.unwrap_or_default(),
                    delta.name.unwrap_or_default(),
                    delta.arguments
                );
            }
            Event::MalformedToolCall(malformed) => text += &format!("malformed {}", malformed.text),
            Event::Finished(end) => {
                assert!(matches!(end.continued, None | Some(Continued::Identical)), "{:?}", end.continued);
                counts.continued.fetch_add(usize::from(end.continued.is_some()), Ordering::Relaxed);
                return (text + &end.text, calls, end.reason);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no end")
}

#[derive(Debug, Default)]
struct Counts {
    answers: AtomicUsize,
    /// Answers that went on elsewhere at least once.
    continued: AtomicUsize,
    events: AtomicUsize,
    signals: AtomicUsize,
}

/// Time of a test: a few seconds, or `EXSA_KILL_SECONDS`.
fn time() -> Duration {
    let seconds = std::env::var("EXSA_KILL_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

fn pool(worker: WorkerOptions) -> WorkerPool {
    let restart = RestartPolicy::new()
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .restarts_max(None, Duration::ZERO);
    let breaker = BreakerOptions::default().failures_max(u32::MAX);
    let pool = PoolOptions::new().crashes_max(None).breaker(breaker);
    let options = WorkerPoolOptions::new(worker.restart(restart)).workers(WORKERS).pool(pool);
    let pool = WorkerPool::start(options.threads(NonZeroUsize::new(1))).unwrap();
    // A worker that breaks itself may do so before the last is ready.
    let until = Instant::now() + WAIT;
    while !pool.workers().iter().any(|worker| worker.is_ready()) {
        assert!(Instant::now() < until, "{:?}", pool.status());
        std::thread::sleep(Duration::from_millis(2));
    }
    pool
}

/// Runs the requests again and again, 8 at a time, on three workers that fail. Each answer must be that of
/// `model` in this process. Ends after [`time`], once each request was answered and an answer was continued.
pub fn survive(worker: WorkerOptions, model: Arc<dyn Model>, requests: &[(&str, Request)], fault: Fault) {
    let alone = Engine::start(model, EngineOptions::default()).unwrap();
    let none = Counts::default();
    let expected: Vec<_> =
        requests.iter().map(|(_, request)| collect(alone.submit(request.clone()).unwrap(), &none)).collect();
    drop(alone);
    let pool = pool(fault.prepare(worker));
    let (done, counts, next) = (AtomicBool::new(false), Counts::default(), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..STREAMS {
            let (done, counts, next, expected, pool) = (&done, &counts, &next, &expected, &pool);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let (name, request) = &requests[i % requests.len()];
                    let seen = collect(pool.submit(request.clone()).unwrap(), counts);
                    if seen != expected[i % requests.len()] {
                        done.store(true, Ordering::Relaxed);
                        panic!("{name}: {seen:?}\nis not\n{:?}", expected[i % requests.len()]);
                    }
                    counts.answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = 7_u64;
        let is_enough = || {
            counts.answers.load(Ordering::Relaxed) >= requests.len() + STREAMS
                && counts.continued.load(Ordering::Relaxed) > 0
        };
        while !done.load(Ordering::Relaxed)
            && (start.elapsed() < time() || !is_enough() && start.elapsed() < time() + WAIT)
        {
            std::thread::sleep(EVERY);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let worker = &pool.workers()[(random >> 33) as usize % WORKERS];
            // One that loads may be killed as well; stopped, it would only take longer until it is noticed.
            let status = worker.status();
            if let Some(pid) =
                status.pid.filter(|_| fault != Fault::Stop || status.state == WorkerState::Ready)
            {
                fault.strike(pid);
                counts.signals.fetch_add(1, Ordering::Relaxed);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let lost: u64 = pool.pool().members().iter().map(|member| member.lost).sum();
    let restarts: u64 = pool.status().iter().map(|status| status.restarts).sum();
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let signals = match fault {
        Fault::Kill | Fault::Stop => format!("{} signals, ", count(&counts.signals)),
        _ => String::new(),
    };
    eprintln!(
        "{fault:?}: {signals}{restarts} restarts, {} answers of {} events, {} of them continued, {lost} losses, {:.1?}",
        count(&counts.answers),
        count(&counts.events),
        count(&counts.continued),
        start.elapsed()
    );
    assert!(count(&counts.answers) >= requests.len(), "too few answers");
    assert!(restarts > 0 && lost > 0 && count(&counts.continued) > 0, "no stream was cut");
}
