//! Eight streams run when a prompt of 32,000 tokens arrives. A pass takes 5 ms and 0.25 ms a token.

use super::driver::{Driver, greedy, tokens};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{EngineOptions, Mode};
use std::time::Duration;

const PROMPT: usize = 32_000;

/// The 95th percentile and the longest of the times between two tokens of the streams, and the time to the
/// first token of the long prompt.
fn run(mode: Mode, batch: usize) -> (Duration, Duration, Duration) {
    let clock = ManualClock::new();
    let (per_pass, per_token) = (Duration::from_millis(5), Duration::from_micros(250));
    let model =
        ScriptedModel::ngram(1).context(40_000).kv(80_000, 16).cost(clock.clone(), per_pass, per_token);
    let session = SessionOptions::new().batch_tokens(batch);
    let target = Duration::from_millis(50);
    let options = EngineOptions::default().session(session).mode(mode).inter_token_target(target);
    let mut driver = Driver::new(model, clock, options);
    for seed in 0..8 {
        driver.submit(greedy(tokens(seed, 100), 2000));
    }
    for _ in 0..20 {
        driver.step();
    }
    let before = driver.answers[0].tokens.len();
    let long = driver.submit(greedy(tokens(99, PROMPT), 2));
    while driver.answers[long].tokens.is_empty() {
        driver.step();
    }
    let mut gaps: Vec<Duration> = driver.answers[..8]
        .iter()
        .flat_map(|answer| {
            answer.times[before - 1..].windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
        })
        .collect();
    gaps.sort_unstable();
    driver.step();
    let first = driver.answers[long].times[0] - driver.answers[0].times[before - 1];
    (gaps[gaps.len() * 95 / 100], *gaps.last().unwrap(), first)
}

#[test]
fn running_streams_go_on_while_a_long_prompt_comes_in() {
    let (whole, longest, first) = run(Mode::Throughput, 40_000);
    println!(
        "not cut: p95 {whole:.1?}, longest {longest:.1?}, first token of the long prompt after {first:.1?}"
    );
    assert!(longest > Duration::from_secs(8));
    for (mode, limit) in [(Mode::Latency, 30), (Mode::Balanced, 51)] {
        let (p95, longest, first) = run(mode, 512);
        println!(
            "{mode:?}: p95 {p95:.1?}, longest {longest:.1?}, first token of the long prompt after {first:.1?}"
        );
        assert!(p95 <= Duration::from_millis(limit), "{mode:?}: {p95:?}");
        assert!(longest <= Duration::from_millis(100), "{mode:?}: {longest:?}");
    }
}
