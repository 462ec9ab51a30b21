//! The queue of a pool: classes, shares, limits, places, streams that are not read.

use crate::proxy::Proxy;
use crate::read;
use exsa_core::generator::QueueScope;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{
    EngineOptions, Event, FinishReason, Generator, Priority, Request, SamplingParams, SubmitError,
    TokenStream,
};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A pool of one member that takes one request at a time.
fn narrow(options: PoolOptions) -> (Pool, Arc<Proxy>) {
    let member = Proxy::new(ScriptedModel::echo("ok").context(1 << 20).shared(), EngineOptions::default());
    let pool = Pool::new(options).unwrap();
    pool.add(Member::new("only", member.clone()).in_flight_max(1));
    (pool, member)
}

fn request(name: &str) -> Request {
    Request::text(name).sampling(SamplingParams::greedy())
}

/// A request that runs until it is cancelled.
fn blocker(pool: &Pool) -> TokenStream {
    let mut stream = pool.submit(request("blocker").ignore_eos(true)).unwrap();
    assert!(matches!(stream.next(), Some(Event::Token(_))));
    stream
}

fn order(member: &Proxy) -> Vec<String> {
    let name = |request: &Request| match &request.prompt {
        exsa_core::Prompt::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    member.requests.lock().iter().map(name).collect()
}

#[test]
fn classes_and_users_take_turns_over_the_pool() {
    let (pool, member) = narrow(PoolOptions::new());
    let running = blocker(&pool);
    let of = |name: &str, user: &str, priority| {
        pool.submit(request(name).user_id(user).priority(priority)).unwrap()
    };
    let streams = vec![
        of("batch", "a", Priority::Batch),
        of("a1", "a", Priority::Normal),
        of("a2", "a", Priority::Normal),
        of("a3", "a", Priority::Normal),
        of("b1", "b", Priority::Normal),
        of("urgent", "a", Priority::Interactive),
    ];
    assert_eq!(pool.stats().scheduler.waiting, 6);
    let mut by_user = pool.waiting_by_user();
    by_user.sort();
    assert_eq!(by_user, [("a".into(), 5), ("b".into(), 1)]);
    drop(running);
    for stream in streams {
        assert_eq!(read(stream).finished.reason, FinishReason::EndOfGeneration);
    }
    assert_eq!(order(&member), ["blocker", "urgent", "a1", "b1", "a2", "a3", "batch"]);
    assert_eq!(pool.stats().scheduler.waiting, 0);
}

#[test]
fn the_queue_has_limits_and_places() {
    let (pool, _member) = narrow(PoolOptions::new().queue_max(3).user_queue_max(2));
    let running = blocker(&pool);
    let a: Vec<_> = (0..2).map(|_| pool.submit(request("a").user_id("a")).unwrap()).collect();
    let error = pool.submit(request("a").user_id("a")).unwrap_err();
    assert!(
        matches!(error, SubmitError::QueueFull { scope: QueueScope::User, waiting: 2, limit: 2, .. }),
        "{error}"
    );
    let b = pool.submit(request("b").user_id("b").priority(Priority::Batch)).unwrap();
    let error = pool.submit(request("b").user_id("b")).unwrap_err();
    assert!(
        matches!(error, SubmitError::QueueFull { scope: QueueScope::All, waiting: 3, limit: 3, .. }),
        "{error}"
    );
    let ahead = |stream: &TokenStream| stream.queue_position(Duration::from_secs(5)).map(|place| place.ahead);
    assert_eq!([ahead(&a[0]), ahead(&a[1]), ahead(&b), ahead(&running)], [Some(0), Some(1), Some(2), None]);
    // A request that is cancelled leaves its place.
    let [first, second] = <[TokenStream; 2]>::try_from(a).unwrap();
    first.cancel();
    assert_eq!(read(first).finished.reason, FinishReason::Cancelled);
    assert_eq!((ahead(&second), ahead(&b)), (Some(0), Some(1)));
    drop(second);
    assert_eq!(pool.stats().scheduler.waiting, 1);
    drop(running);
    let seen = read(b);
    assert_eq!(seen.finished.reason, FinishReason::EndOfGeneration);
    assert!(seen.finished.usage.queue_time.unwrap() > Duration::ZERO);
}

#[test]
fn time_limits_hold_in_the_queue() {
    let (pool, member) = narrow(PoolOptions::new());
    let _running = blocker(&pool);
    let late = pool.submit(request("late").timeout(Duration::from_millis(60))).unwrap();
    let first = pool.submit(request("first").first_token_timeout(Duration::from_millis(60))).unwrap();
    assert_eq!(read(late).finished.reason, FinishReason::Deadline);
    assert_eq!(read(first).finished.reason, FinishReason::FirstTokenTimeout);
    assert_eq!(order(&member), ["blocker"]);
}

#[test]
fn a_stream_that_is_not_read_is_paused_by_its_member() {
    let member = Proxy::new(ScriptedModel::echo("ok").context(1 << 20).shared(), EngineOptions::default());
    let pool = Pool::new(PoolOptions::new().stream_events_max(8)).unwrap();
    pool.add(Member::new("only", member.clone()));
    let mut stream = pool.submit(request("x").ignore_eos(true).max_tokens(300)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let generated = member.stats().tokens_generated;
    assert!((8..100).contains(&generated), "{generated} tokens");
    let other = read(pool.submit(request("y")).unwrap());
    assert_eq!(other.finished.reason, FinishReason::EndOfGeneration);
    assert!(matches!(stream.next(), Some(Event::Token(_))));
    let rest = read(stream);
    assert_eq!((rest.events.len(), rest.finished.reason), (299, FinishReason::MaxTokens));
    assert_eq!(member.submitted.load(SeqCst), 2);
}
