//! Streams on a pool whose workers are killed all the time: each is the same as without faults.
//!
//! `EXSA_KILL_SECONDS` sets the time of each test in seconds, 20 by default.

use crate::engines::{options, scripted};
#[cfg(feature = "candle")]
use crate::engines::{tiny, tiny_options};
use crate::harness::Test;
use crate::signals;
use crate::streams::WAIT;
use exsa_core::backend::Model;
use exsa_core::chat::{ChatOptions, Json};
use exsa_core::sampler::Mirostat;
use exsa_core::{
    Constraint, Engine, EngineOptions, Event, FinishReason, Generator, Message, Request, RequestError,
    SamplingParams, TokenStream,
};
use exsa_pool::{BreakerOptions, PoolOptions};
use exsa_worker::{RestartPolicy, Timeouts, WorkerOptions, WorkerPool, WorkerPoolOptions};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("killing::streams_survive_kills", streams_survive_kills),
    ("killing::tool_calls_survive_kills", tool_calls_survive_kills),
    #[cfg(feature = "candle")]
    ("killing::streams_of_candle_survive_kills", streams_of_candle_survive_kills),
    ("killing::streams_survive_stops", streams_survive_stops),
    ("killing::a_poisonous_prompt_ends_few_workers", a_poisonous_prompt_ends_few_workers),
    ("killing::workers_are_replaced_one_by_one", workers_are_replaced_one_by_one),
];

const STREAMS: usize = 8;
const WORKERS: usize = 3;
const EVERY: Duration = Duration::from_millis(300);

/// Text and tool calls of an answer.
type Seen = (String, BTreeMap<usize, String>, FinishReason);

fn collect(stream: TokenStream, tokens: &AtomicUsize) -> Seen {
    let (mut text, mut calls) = (String::new(), BTreeMap::<usize, String>::new());
    for event in stream {
        tokens.fetch_add(1, Ordering::Relaxed);
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
            Event::Finished(end) => return (text + &end.text, calls, end.reason),
            other => panic!("{other:?}"),
        }
    }
    panic!("no end")
}

fn time() -> Duration {
    let seconds = std::env::var("EXSA_KILL_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

fn pool(worker: WorkerOptions) -> WorkerPool {
    let restart = RestartPolicy::new()
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .restarts_max(None, Duration::ZERO);
    let breaker = BreakerOptions::default().failures_max(u32::MAX);
    let pool = PoolOptions::new().crashes_max(None).breaker(breaker);
    let options = WorkerPoolOptions::new(worker.restart(restart)).workers(WORKERS).pool(pool);
    let pool = WorkerPool::start(options.threads(std::num::NonZeroUsize::new(1))).unwrap();
    pool.wait_ready(WAIT).unwrap();
    pool
}

/// Runs the requests again and again while `fault` hits a random worker; returns the answers compared.
fn survive(
    pool: &WorkerPool,
    model: Arc<dyn Model>,
    requests: &[(&str, Request)],
    fault: impl Fn(u32) + Sync,
) -> usize {
    let alone = Engine::start(model, EngineOptions::default()).unwrap();
    let none = AtomicUsize::new(0);
    let expected: Vec<_> =
        requests.iter().map(|(_, request)| collect(alone.submit(request.clone()).unwrap(), &none)).collect();
    drop(alone);
    let (done, answers, tokens, faults) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for first in 0..STREAMS {
            let (done, answers, tokens, expected) = (&done, &answers, &tokens, &expected);
            scope.spawn(move || {
                for i in (first..).step_by(STREAMS - 1) {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let (name, request) = &requests[i % requests.len()];
                    let seen = collect(pool.submit(request.clone()).unwrap(), tokens);
                    if seen != expected[i % requests.len()] {
                        done.store(true, Ordering::Relaxed);
                        panic!("{name}: {seen:?}\nis not\n{:?}", expected[i % requests.len()]);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = 7_u64;
        while start.elapsed() < time() && !done.load(Ordering::Relaxed) {
            std::thread::sleep(EVERY);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let worker = &pool.workers()[(random >> 33) as usize % WORKERS];
            if let Some(pid) = worker.status().pid {
                fault(pid);
                faults.fetch_add(1, Ordering::Relaxed);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let lost: u64 = pool.pool().members().iter().map(|member| member.lost).sum();
    eprintln!(
        "{} answers, {} events, {} faults, {lost} losses, {:?}",
        answers.load(Ordering::Relaxed),
        tokens.load(Ordering::Relaxed),
        faults.load(Ordering::Relaxed),
        start.elapsed()
    );
    assert!(answers.load(Ordering::Relaxed) >= requests.len(), "too few answers");
    assert!(lost > 0, "no stream was cut");
    answers.load(Ordering::Relaxed)
}

fn requests() -> Vec<(&'static str, Request)> {
    let seeded = |name: &str| Request::text(name).temperature(1.2).seed(7).ignore_eos(true).max_tokens(250);
    let set = |name: &str, set: fn(SamplingParams) -> SamplingParams| {
        let mut request = seeded(name);
        request.sampling = set(request.sampling);
        request
    };
    let schema = r#"{"type": "object", "properties": {"kind": {"enum": ["first", "second"]},
        "numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 20, "maxItems": 30},
        "text": {"type": "string", "minLength": 50, "maxLength": 80, "pattern": "^[a-z ]*$"}},
        "required": ["kind", "numbers", "text"], "additionalProperties": false}"#;
    vec![
        ("greedy", set("greedy", |s| s.temperature(0.0))),
        ("seeded", set("seeded", |s| s.logprobs(true))),
        (
            "penalties",
            set("penalties", |s| s.repetition_penalty(1.4).frequency_penalty(0.5).presence_penalty(0.3)),
        ),
        ("DRY and XTC", set("dry", |s| s.dry_multiplier(0.6).xtc_probability(0.5))),
        ("mirostat 1", set("mirostat 1", |s| s.mirostat(Mirostat::V1).mirostat_tau(2.0))),
        ("mirostat 2", set("mirostat 2", |s| s.mirostat(Mirostat::V2).mirostat_tau(2.0))),
        (
            "a JSON schema",
            seeded("schema").ignore_eos(false).max_tokens(400).constraint(Constraint::json_schema(schema)),
        ),
        ("a stop string", seeded("stop").max_tokens(900).stop("zq").stop("ab").stop("Qx")),
        ("banned strings", seeded("banned").max_tokens(150).banned_string("ab").banned_string("c")),
    ]
}

fn streams_survive_kills() {
    let pool = pool(options(json!({"pace_us": 1500})));
    survive(&pool, scripted(&json!({})), &requests(), signals::kill);
}

fn streams_survive_stops() {
    let timeouts = Timeouts::new().stall_min(Duration::from_millis(400));
    let pool = pool(options(json!({"pace_us": 1500})).timeouts(timeouts));
    survive(&pool, scripted(&json!({})), &requests(), signals::stop);
}

const TEMPLATE: &str = "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>{% endfor %}\
    {% if tools %}<tools>{{ tools | tojson }}</tools> <tool_call>{% endif %}\
    {% if add_generation_prompt %}<|bos|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}\
    {# </think> #}";

fn tool_calls_survive_kills() {
    let tool = r#"{"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}"#;
    let tool: Json = tool.parse().unwrap();
    let call = |city: &str| {
        let words = "a long argument ".repeat(8);
        format!(
            "<tool_call>\n{{\"name\": \"time\", \"arguments\": {{\"city\": \"{city}\", \"text\": \"{words}\"}}}}\n</tool_call>"
        )
    };
    let says = format!("<think>Grüße an die 世界</think>\nI look.\n{}\n{}", call("Berlin"), call("Köln"));
    let host = json!({"pace_us": 1500, "says": says, "template": TEMPLATE});
    let request = Request::chat([Message::user("?")]).chat_options(ChatOptions::default().tools([tool]));
    let request = request.sampling(SamplingParams::greedy().seed(7));
    let pool = pool(options(host.clone()));
    survive(&pool, scripted(&host), &[("tool calls", request.clone()), ("again", request)], signals::kill);
}

#[cfg(feature = "candle")]
fn streams_of_candle_survive_kills() {
    let seeded = |text: &str| Request::text(text).temperature(0.9).seed(5).max_tokens(120);
    let set = |set: fn(SamplingParams) -> SamplingParams| {
        let mut request = seeded("The little dog");
        request.sampling = set(request.sampling);
        request
    };
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["name", "age"]}"#;
    let requests = [
        ("seeded", seeded("Once upon a time")),
        ("greedy", set(|s| s.temperature(0.0))),
        ("penalties", set(|s| s.repetition_penalty(1.3).presence_penalty(0.4))),
        ("mirostat", set(|s| s.mirostat(Mirostat::V2).mirostat_tau(3.0))),
        ("a JSON schema", seeded("A person:").constraint(Constraint::json_schema(schema))),
        ("a stop string", seeded("Tom and Sam").stop("the park").stop(" was")),
    ];
    let mut progress = |_, _| true;
    let model = tiny(&mut progress).unwrap();
    let pool = pool(tiny_options());
    survive(&pool, model, &requests, signals::kill);
}

fn a_poisonous_prompt_ends_few_workers() {
    let options =
        WorkerPoolOptions::new(options(json!({"fault": "abort", "pace_us": 1000}))).workers(WORKERS);
    let pool = WorkerPool::start(options).unwrap();
    pool.wait_ready(WAIT).unwrap();
    let others: Vec<_> =
        (0..4).map(|i| pool.submit(crate::streams::seeded(&format!("other {i}"), 400)).unwrap()).collect();
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
                        let request = crate::streams::seeded(&format!("{i}"), 60);
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
