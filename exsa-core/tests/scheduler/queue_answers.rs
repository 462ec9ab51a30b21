//! Answers to requests that wait or are refused.

use super::driver::{Driver, costly, greedy, tokens};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::generator::QueueScope;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions, FinishReason, Priority, Request, SubmitError};
use std::time::Duration;

fn one_at_a_time() -> SessionOptions {
    SessionOptions::new().sequences(1)
}

#[test]
fn a_refusal_tells_the_depth_of_the_class_and_the_wait() {
    let clock = ManualClock::new();
    let options = EngineOptions::default().session(one_at_a_time()).queue_max(8).user_queue_max(Some(3));
    let mut driver = Driver::new(costly(ScriptedModel::ngram(1), &clock), clock, options);
    let request = |user: &str| greedy(tokens(1, 10), 20).user_id(user);
    // Five one after the other: how fast the queue moves is known from then on.
    for i in 0..5 {
        driver.submit(request(["a", "b"][i % 2]));
    }
    driver.finish();
    for _ in 0..3 {
        driver.submit(request("a"));
    }
    let refused = driver.engine.submit(request("a")).err().unwrap();
    println!("{refused}");
    let SubmitError::QueueFull {
        waiting: 3,
        limit: 3,
        scope: QueueScope::User,
        class_depth: 3,
        ahead: 3,
        ..
    } = refused
    else {
        panic!("{refused:?}")
    };
    for i in 0..5 {
        let priority = if i < 4 { Priority::Interactive } else { Priority::Normal };
        driver.submit(request(["b", "c"][i % 2]).priority(priority));
    }
    let refused = driver.engine.submit(request("d")).err().unwrap();
    println!("{refused}");
    let SubmitError::QueueFull {
        waiting: 8,
        limit: 8,
        scope: QueueScope::All,
        class_depth: 4,
        ahead: 8,
        estimated_wait,
        ..
    } = refused
    else {
        panic!("{refused:?}")
    };
    // Eight before it, each of 20 passes: 19 of 6 ms and one of a prompt, less what is cached.
    let wait = estimated_wait.unwrap();
    assert!((Duration::from_millis(700)..Duration::from_millis(1400)).contains(&wait), "{wait:?}");
    driver.finish();
}

#[test]
fn a_waiting_request_can_ask_for_its_place() {
    let options = EngineOptions::default().session(one_at_a_time());
    let model = ScriptedModel::ngram(1).context(1 << 30).kv(1 << 20, 16);
    let engine = Engine::start(model.shared(), options).unwrap();
    let second = Duration::from_secs(20);
    let endless = |user: &str| Request::text("x").ignore_eos(true).user_id(user);
    let mut running = engine.submit(endless("a")).unwrap();
    running.next();
    assert_eq!(running.queue_position(second), None, "it runs");
    let waiting = ["a", "a", "a", "b"].map(|user| engine.submit(endless(user).max_tokens(1)).unwrap());
    let urgent = engine.submit(endless("c").priority(Priority::Batch)).unwrap();
    let place =
        |stream: &exsa_core::TokenStream| stream.queue_position(second).map(|position| position.ahead);
    // a goes on being served, so that b's only request goes before all of a's.
    let generated = engine.stats().tokens_generated;
    while engine.stats().tokens_generated < generated + 10 {
        std::thread::yield_now();
    }
    assert_eq!(waiting.each_ref().map(place), [Some(1), Some(2), Some(3), Some(0)]);
    assert_eq!(place(&urgent), Some(4));
    let by_user = engine.waiting_by_user();
    assert_eq!(by_user.iter().map(|(_, n)| n).sum::<usize>(), 5);
    assert!(by_user.iter().any(|(user, n)| (&**user, *n) == ("a", 3)));
    drop(urgent);
    drop(running);
    for stream in waiting {
        assert_eq!(stream.complete().unwrap().reason, FinishReason::MaxTokens);
    }
}

#[test]
fn what_can_never_fit_is_refused_with_what_would() {
    let options = EngineOptions::default().session(one_at_a_time());
    let model = ScriptedModel::ngram(1).kv(256, 16).context(4096);
    let mut driver = Driver::new(model, ManualClock::new(), options);
    let refused = driver.engine.submit(greedy(tokens(1, 100), 200)).err().unwrap();
    println!("{refused}");
    assert!(matches!(
        refused,
        SubmitError::KvTooLarge { tokens: 300, needed: 1200, available: 1024, tokens_max: 156 }
    ));
    let answer = driver.run(greedy(tokens(1, 100), 156));
    assert_eq!((answer.tokens.len(), answer.reason), (156, Some(FinishReason::MaxTokens)));
    let refused = driver.engine.submit(greedy(tokens(1, 9), 9).weight(0.0)).err().unwrap();
    assert!(matches!(refused, SubmitError::Weight(_)));
}

#[test]
fn limits_expire_in_the_queue_and_the_first_token_lifts_its_own() {
    let clock = ManualClock::new();
    let options = EngineOptions::default().session(one_at_a_time());
    let mut driver = Driver::new(costly(ScriptedModel::ngram(1), &clock), clock.clone(), options);
    let ms = Duration::from_millis;
    let runs = driver.submit(greedy(tokens(1, 10), 100).first_token_timeout(ms(100)));
    let late = driver.submit(greedy(tokens(2, 10), 100).first_token_timeout(ms(100)));
    let expired = driver.submit(greedy(tokens(3, 10), 100).timeout(ms(50)));
    driver.finish();
    let reasons = [runs, late, expired].map(|i| driver.answers[i].reason.clone().unwrap());
    assert_eq!(reasons, [FinishReason::MaxTokens, FinishReason::FirstTokenTimeout, FinishReason::Deadline]);
    assert!(driver.answers[late].usage.total_time < ms(110));
    assert!(driver.answers[expired].usage.total_time < ms(60));
    // In the middle of a prompt too.
    let long = driver.submit(greedy(tokens(4, 3000), 5).first_token_timeout(ms(900)));
    driver.finish();
    assert_eq!(driver.answers[long].reason, Some(FinishReason::FirstTokenTimeout));
}
