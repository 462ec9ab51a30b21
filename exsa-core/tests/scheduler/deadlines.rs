//! Time limits that expire during the prefill of 2,000 tokens in one pass of 5 ms plus 1 ms per token.

use super::driver::{Answer, Driver, costly, greedy, tokens};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::{Clock, ManualClock};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{EngineOptions, FinishReason, Mode, Request};
use std::time::Duration;

const PROMPT: usize = 2000;

fn driver() -> Driver {
    let clock = ManualClock::new();
    let model = costly(ScriptedModel::ngram(1).context(4000).kv(16_000, 16), &clock);
    let session = SessionOptions::new().batch_tokens(5000);
    let options = EngineOptions::default().session(session).mode(Mode::Throughput);
    Driver::new(model, clock, options)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn long(seed: u64) -> Request {
    greedy(tokens(seed, PROMPT), 3)
}

/// Runs `requests` concurrently; returns their answers and the time at which the last of them ended.
fn run(requests: impl IntoIterator<Item = Request>) -> (Vec<Answer>, Duration, Driver) {
    let mut driver = driver();
    for request in requests {
        driver.submit(request);
    }
    driver.finish();
    let end = driver.clock.now();
    assert_eq!(driver.stats().scheduler.kv_tokens_used, 0);
    (driver.answers.clone(), end, driver)
}

#[test]
fn a_pass_ends_when_its_request_expires() {
    let (alone, whole, _) = run([long(1)]);
    assert!(whole > ms(2000), "one pass of {whole:?}");
    for (request, reason) in [
        (long(1).timeout(ms(100)), FinishReason::Deadline),
        (long(1).first_token_timeout(ms(100)), FinishReason::FirstTokenTimeout),
        (long(1).first_token_timeout(ms(100)).timeout(ms(3000)), FinishReason::FirstTokenTimeout),
    ] {
        let (answers, end, mut driver) = run([request]);
        assert_eq!((answers[0].reason.as_ref(), end), (Some(&reason), ms(100)));
        let again = driver.run(long(1));
        assert_eq!(again.tokens, alone[0].tokens, "the session goes on");
    }
}

#[test]
fn a_pass_goes_on_for_those_whose_time_is_not_over() {
    let (alone, ..) = run([long(2)]);
    let (answers, end, _) = run([long(1).timeout(ms(100)), long(2)]);
    assert_eq!(answers[0].reason, Some(FinishReason::Deadline));
    assert_eq!(answers[1].tokens, alone[0].tokens);
    assert!(end > ms(4000), "{end:?}");

    let (answers, end, _) = run([long(1).timeout(ms(100)), long(2).first_token_timeout(ms(300))]);
    assert_eq!(answers[0].reason, Some(FinishReason::Deadline));
    assert_eq!((answers[1].reason.as_ref(), end), (Some(&FinishReason::FirstTokenTimeout), ms(300)));
}

#[test]
fn who_waits_behind_a_pass_that_was_cut_goes_on() {
    let (alone, ..) = run([greedy(tokens(3, 50), 20)]);
    let mut driver = driver();
    driver.submit(long(1).timeout(ms(100)));
    driver.submit(long(2).timeout(ms(150)));
    driver.step();
    let after = driver.submit(greedy(tokens(3, 50), 20));
    driver.finish();
    assert_eq!(driver.answers[after].tokens, alone[0].tokens);
    assert!(driver.answers[after].times[0] < ms(250), "{:?}", driver.answers[after].times[0]);
}

#[test]
fn a_limit_for_the_first_token_is_none_for_the_others() {
    let (answers, ..) = run([greedy(tokens(1, 10), 200).first_token_timeout(ms(20))]);
    assert_eq!((answers[0].reason.as_ref(), answers[0].tokens.len()), (Some(&FinishReason::MaxTokens), 200));
}
