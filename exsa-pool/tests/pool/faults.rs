//! Members that fail: limits on crashes, terms of continuation, breakers, hedging, shutdown.

use crate::proxy::Proxy;
use crate::{Seen, read};
use exsa_conformance::faulty::{Effect, Faults, FaultyModel, Operation, When};
use exsa_core::backend::Fingerprint;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{
    Continuation, Continued, Engine, EngineOptions, Event, FinishReason, Generator, Request, RequestError,
    SamplingParams, SubmitError,
};
use exsa_pool::{BreakerOptions, Member, Pool, PoolOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

const TEXT: &str = "the quick brown fox jumps over the lazy dog";

/// A member that takes a millisecond for a pass, and is cut after a number of tokens.
fn proxy() -> Arc<Proxy> {
    let faults = Faults::new();
    faults.add(When::Always(Operation::Forward), Effect::Stall(Duration::from_millis(1)));
    let model = FaultyModel::new(ScriptedModel::echo(TEXT).shared(), faults);
    let proxy = Proxy::new(model.shared(), EngineOptions::default());
    proxy.each_event.store(true, SeqCst);
    proxy
}

fn pool(options: PoolOptions, members: &[&Arc<Proxy>]) -> Pool {
    let pool = Pool::new(options).unwrap();
    for (i, member) in members.iter().enumerate() {
        pool.add(Member::new(i.to_string(), (*member).clone()));
    }
    pool
}

fn request() -> Request {
    Request::text("x").sampling(SamplingParams::greedy())
}

fn text(seen: &Seen) -> String {
    let pieces = seen.events.iter().map(|event| match event {
        Event::Token(token) => token.text.as_str(),
        other => panic!("{other:?}"),
    });
    pieces.collect::<String>() + &seen.finished.text
}

/// Waits until `condition` holds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_request_that_ran_in_two_crashes_is_not_tried_again() {
    let members = [proxy(), proxy(), proxy()];
    members.iter().for_each(|member| member.cut_after(3));
    let pool = pool(PoolOptions::new(), &members.each_ref());
    let seen = read(pool.submit(request()).unwrap());
    let FinishReason::Failed(RequestError::Crashed { crashes: 2, reason }) = &seen.finished.reason else {
        panic!("{:?}", seen.finished.reason)
    };
    assert!(reason.contains("on purpose"), "{reason}");
    assert_eq!(text(&seen), TEXT[..6], "three tokens of each");
    assert_eq!(seen.finished.usage.completion_tokens, 6);
    assert_eq!(members.iter().filter(|member| member.is_up()).count(), 1, "the third is spared");
    members.iter().for_each(|member| member.revive());
    assert_eq!(text(&read(pool.submit(request()).unwrap())), TEXT);
}

#[test]
fn a_member_that_is_not_reached_is_no_crash() {
    let (away, here) = (proxy(), proxy());
    away.unavailable.store(true, SeqCst);
    let options = PoolOptions::new().crashes_max(1).unavailable_max(Duration::from_millis(300));
    let pool = pool(options, &[&away, &here]);
    for _ in 0..8 {
        assert_eq!(text(&read(pool.submit(request()).unwrap())), TEXT);
    }
    assert!(away.submitted.load(SeqCst) >= 1, "it was tried");
    // In mid-stream too: the one that is left is not reached at first.
    here.cut_after(5);
    let mut stream = pool.submit(request()).unwrap();
    assert!(matches!(stream.next(), Some(Event::Token(_))));
    eventually("it is cut", || !here.is_up());
    let error = stream.complete().unwrap_err();
    assert!(matches!(error, RequestError::Crashed { crashes: 1, .. }), "{error:?}");
    // With nobody there, requests end after the time that is set.
    here.revive();
    here.unavailable.store(true, SeqCst);
    let begun = Instant::now();
    let error = pool.submit(request()).unwrap().complete().unwrap_err();
    assert_eq!(error, RequestError::Unavailable("nobody is there".into()));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn a_backend_that_panics_loses_no_request() {
    let faults = Faults::new();
    let model = FaultyModel::new(ScriptedModel::echo(TEXT).shared(), faults.clone());
    let broken = Arc::new(Engine::start(model.shared(), EngineOptions::default()).unwrap());
    let pool = Pool::new(PoolOptions::new()).unwrap();
    let of_ready = broken.clone();
    pool.add(Member::new("broken", broken).ready(move || !of_ready.is_shut_down()));
    let streams: Vec<_> = (0..4).map(|_| pool.submit(request()).unwrap()).collect();
    faults.add(When::Always(Operation::Forward), Effect::Panic);
    pool.add(Member::new("whole", proxy()));
    for stream in streams {
        assert_eq!(text(&read(stream)), TEXT);
    }
}

#[test]
fn an_answer_goes_on_only_with_the_same_weights() {
    let (first, second) = (proxy(), proxy());
    let other = Continuation::new(Continued::Identical, Fingerprint(1));
    *second.terms.lock() = Some(other);
    let pool = pool(PoolOptions::new(), &[&first, &second]);
    first.cut_after(5);
    let mut stream = pool.submit(request()).unwrap();
    for _ in 0..5 {
        assert!(matches!(stream.next(), Some(Event::Token(_))));
    }
    eventually("it is cut", || !first.is_up());
    assert_eq!(stream.next_timeout(Duration::from_millis(100)), None, "it waits for the first member");
    assert_eq!(second.submitted.load(SeqCst), 0);
    first.revive();
    let rest = read(stream);
    assert_eq!(text(&rest), TEXT[5..]);
    assert_eq!(rest.finished.continued, Some(Continued::Identical));

    // Without a token, any model will do.
    first.cut_after(0);
    assert_eq!(text(&read(pool.submit(request()).unwrap())), TEXT);
    assert_eq!(second.submitted.load(SeqCst), 1);
}

#[test]
fn a_continuation_of_the_same_distribution_is_marked() {
    let (first, second) = (proxy(), proxy());
    let terms = |continued| Some(Continuation::new(continued, Fingerprint(1)));
    *first.terms.lock() = terms(Continued::Identical);
    *second.terms.lock() = terms(Continued::SameDistribution);
    let pool = pool(PoolOptions::new(), &[&first, &second]);
    first.cut_after(5);
    let seen = read(pool.submit(request()).unwrap());
    assert_eq!((text(&seen).as_str(), seen.finished.continued), (TEXT, Some(Continued::SameDistribution)));
    let whole = read(pool.submit(request()).unwrap());
    assert_eq!(whole.finished.continued, None);
}

#[test]
fn limits_hold_while_an_answer_waits_to_go_on() {
    let only = proxy();
    let pool = pool(PoolOptions::new(), &[&only]);
    only.cut_after(5);
    let seen = read(pool.submit(request().timeout(Duration::from_millis(150))).unwrap());
    assert_eq!((&seen.finished.reason, text(&seen).as_str()), (&FinishReason::Deadline, &TEXT[..5]));
    assert!(seen.finished.usage.total_time >= Duration::from_millis(150));

    only.revive();
    only.cut_after(0);
    let seen = read(pool.submit(request().first_token_timeout(Duration::from_millis(50))).unwrap());
    assert_eq!(seen.finished.reason, FinishReason::FirstTokenTimeout);

    only.revive();
    only.cut_after(3);
    let mut stream = pool.submit(request()).unwrap();
    assert!(matches!(stream.next(), Some(Event::Token(_))));
    eventually("it is cut", || !only.is_up());
    stream.cancel();
    assert_eq!(read(stream).finished.reason, FinishReason::Cancelled);
    assert_eq!(pool.members()[0].in_flight, 0);
}

#[test]
fn a_member_that_refuses_gets_no_requests_for_a_while() {
    let (broken, whole) = (proxy(), proxy());
    broken.cut(false);
    let breaker = BreakerOptions::default().open(Duration::from_millis(200), Duration::from_secs(1));
    let pool = pool(PoolOptions::new().breaker(breaker), &[&broken, &whole]);
    eventually("the breaker opens", || {
        assert_eq!(text(&read(pool.submit(request()).unwrap())), TEXT);
        pool.members()[0].breaker_open
    });
    assert!(pool.members()[0].submitted >= 3);
    broken.revive();
    eventually("the breaker closes after a trial", || {
        let streams: Vec<_> = (0..4).map(|_| pool.submit(request()).unwrap()).collect();
        streams.into_iter().for_each(|stream| assert_eq!(text(&read(stream)), TEXT));
        !pool.members()[0].breaker_open
    });
    assert!(broken.submitted.load(SeqCst) > 0);
}

#[test]
fn a_wrong_request_is_refused_at_once_and_blamed_on_no_member() {
    let only = proxy();
    let pool = pool(PoolOptions::new(), &[&only]);
    for _ in 0..5 {
        let error = pool.submit(request().max_tokens(0)).unwrap_err();
        assert!(matches!(error, SubmitError::NoTokens), "{error}");
    }
    let error = pool.submit(request().model("other")).unwrap_err();
    assert!(matches!(error, SubmitError::UnknownModel { .. }), "{error}");
    let status = &pool.members()[0];
    assert_eq!((status.breaker_open, status.in_flight), (false, 0));
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.finished), (0, 0));
    // Also where the request would wait.
    only.cut(false);
    let error = pool.submit(request().max_tokens(0)).unwrap_err();
    assert!(matches!(error, SubmitError::NoTokens), "{error}");
    let empty = Pool::new(PoolOptions::new()).unwrap();
    assert!(matches!(empty.submit(request()), Err(SubmitError::Generator(_))));
}

#[test]
fn a_second_member_is_tried_where_the_first_is_slow() {
    let slow = Proxy::new(
        FaultyModel::new(ScriptedModel::echo(TEXT).shared(), {
            let faults = Faults::new();
            faults.add(When::Always(Operation::Forward), Effect::Stall(Duration::from_millis(400)));
            faults
        })
        .shared(),
        EngineOptions::default(),
    );
    let quick = proxy();
    let options = PoolOptions::new().hedge_after(Duration::from_millis(30));
    let pool = pool(options, &[&slow, &quick]);
    // Time for the pool's thread to find nothing to do.
    std::thread::sleep(Duration::from_millis(100));
    let stream = pool.submit(request()).unwrap();
    let seen = read(stream);
    assert_eq!(text(&seen), TEXT);
    assert_eq!((slow.submitted.load(SeqCst), quick.submitted.load(SeqCst)), (1, 1));
    assert_eq!(seen.finished.continued, None);
    eventually("both are released", || pool.members().iter().all(|member| member.in_flight == 0));
    // One that answers in time is not hedged.
    pool.drain("0");
    read(pool.submit(request()).unwrap());
    assert_eq!(slow.submitted.load(SeqCst) + quick.submitted.load(SeqCst), 3);
}

#[test]
fn a_drained_member_finishes_what_it_has() {
    let (old, new) = (proxy(), proxy());
    let pool = pool(PoolOptions::new(), &[&old]);
    let stream = pool.submit(request().ignore_eos(true).max_tokens(400)).unwrap();
    assert!(pool.drain("0") && !pool.drain("none"));
    pool.add(Member::new("new", new.clone()));
    assert_eq!(text(&read(pool.submit(request()).unwrap())), TEXT);
    assert_eq!((old.submitted.load(SeqCst), new.submitted.load(SeqCst)), (1, 1));
    assert_eq!(read(stream).finished.reason, FinishReason::MaxTokens);
    assert!(pool.wait_idle("0", Duration::from_secs(10)));
    assert!(pool.remove("0"));
    assert_eq!(pool.members().len(), 1);
    // A member of the same name replaces the old one.
    pool.add(Member::new("new", old.clone()));
    assert_eq!(pool.members().len(), 1);
    read(pool.submit(request()).unwrap());
    assert_eq!(old.submitted.load(SeqCst), 2);
}

#[test]
fn a_shutdown_ends_all_requests() {
    let (only, down) = (proxy(), proxy());
    let pool = pool(PoolOptions::new(), &[&only]);
    let short = pool.submit(request()).unwrap();
    assert!(pool.shut_down(Duration::from_secs(30)), "all ended by themselves");
    assert_eq!(text(&read(short)), TEXT);
    assert!(matches!(pool.submit(request()), Err(SubmitError::ShuttingDown)));
    drop(pool);

    down.cut(false);
    let pool = Pool::new(PoolOptions::new()).unwrap();
    pool.add(Member::new("up", only.clone()));
    let endless = pool.submit(request().ignore_eos(true)).unwrap();
    only.cut(false);
    drop(pool);
    let seen = read(endless);
    assert!(matches!(seen.finished.reason, FinishReason::Cancelled | FinishReason::ContextFull), "{seen:?}");
    eventually("nothing keeps the member", || Arc::strong_count(&only) == 1);
}
