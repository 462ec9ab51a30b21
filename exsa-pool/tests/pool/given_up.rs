//! Members that were given up for good: requests that need them fail at once.

use crate::proxy::Proxy;
use crate::read;
use exsa_core::backend::{Fingerprint, Pooling, SessionOptions};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{
    Continuation, Continued, EmbedRequest, EngineOptions, Event, FinishReason, Generator, Request,
    RequestError, SamplingParams, SubmitError, TokenStream,
};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const TEXT: &str = "the quick brown fox";
/// Far below any time limit of a test, and far above a pause of a busy machine.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A member that can be given up.
struct Frail {
    proxy: Arc<Proxy>,
    given_up: Arc<AtomicBool>,
}

impl Frail {
    fn new(pool: &Pool, name: &'static str, model: &'static str) -> Self {
        let options = EngineOptions::default().session(SessionOptions::new().pooling(Pooling::Mean));
        let scripted = ScriptedModel::echo(TEXT).context(1 << 20);
        let frail = Self { proxy: Proxy::named(model, scripted.shared(), options), given_up: Arc::default() };
        let (ready, given_up) = (frail.proxy.clone(), frail.given_up.clone());
        let error =
            move || SubmitError::ModelFailed { model: model.into(), reason: format!("{name} is broken") };
        let member = Member::new(name, frail.proxy.clone()).ready(move || ready.is_up());
        pool.add(member.failed(move || given_up.load(SeqCst).then(&error)));
        frail
    }

    fn go_down(&self) {
        self.proxy.cut(false);
    }

    fn give_up(&self, pool: &Pool) {
        self.given_up.store(true, SeqCst);
        self.go_down();
        pool.wake();
    }

    fn revive(&self, pool: &Pool) {
        self.given_up.store(false, SeqCst);
        self.proxy.revive();
        pool.wake();
    }
}

fn pool() -> Pool {
    Pool::new(PoolOptions::new().crashes_max(None)).unwrap()
}

fn request() -> Request {
    Request::text("x").sampling(SamplingParams::greedy())
}

/// The text of the error that a request ends with, at once.
fn lost(stream: TokenStream, ran: bool) -> String {
    let start = Instant::now();
    let seen = read(stream);
    assert!(start.elapsed() < AT_ONCE, "after {:?}", start.elapsed());
    match seen.finished.reason {
        FinishReason::Failed(RequestError::Lost(reason)) if ran => reason,
        FinishReason::Failed(RequestError::Unavailable(reason)) if !ran => reason,
        other => panic!("{other:?}"),
    }
}

fn answers(pool: &Pool, request: Request) {
    let seen = read(pool.submit(request).unwrap());
    assert_eq!(seen.finished.reason, FinishReason::EndOfGeneration);
}

#[test]
fn all_requests_fail_with_the_reason_once_no_member_is_left() {
    let pool = pool();
    let (first, second) = (Frail::new(&pool, "first", ""), Frail::new(&pool, "second", ""));
    // One that was begun, and some that wait while both are down.
    let mut begun = pool.submit(request().ignore_eos(true)).unwrap();
    assert!(matches!(begun.next(), Some(Event::Token(_))));
    second.go_down();
    first.go_down();
    let waiting: Vec<_> = (0..5).map(|_| pool.submit(request()).unwrap()).collect();
    assert!(pool.stats().scheduler.waiting >= 5);
    first.give_up(&pool);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(pool.stats().finished, 0, "the second may come back");
    second.give_up(&pool);
    assert_eq!(lost(begun, true), "model '' has failed: first is broken");
    for stream in waiting {
        assert_eq!(lost(stream, false), "model '' has failed: first is broken");
    }
    assert_eq!(pool.stats().scheduler.waiting, 0);
    // New requests are refused.
    let broken = |error: SubmitError| {
        assert!(
            matches!(&error, SubmitError::ModelFailed { reason, .. } if reason == "first is broken"),
            "{error}"
        );
    };
    broken(pool.submit(request()).unwrap_err());
    broken(pool.embed(EmbedRequest::texts(["x"])).unwrap_err());
    let reasons: Vec<_> = pool.members().into_iter().filter_map(|member| member.failed).collect();
    assert!(reasons.len() == 2 && reasons[1].ends_with("second is broken"), "{reasons:?}");
    // One that was repaired serves all again.
    second.revive(&pool);
    answers(&pool, request());
    pool.embed(EmbedRequest::texts(["x"])).unwrap().wait().unwrap();
}

#[test]
fn members_that_are_left_serve_on() {
    let pool = pool();
    let (first, _second) = (Frail::new(&pool, "first", ""), Frail::new(&pool, "second", ""));
    let mut begun = pool.submit(request().ignore_eos(true).max_tokens(200)).unwrap();
    assert!(matches!(begun.next(), Some(Event::Token(_))));
    first.give_up(&pool);
    answers(&pool, request());
    assert_eq!(read(begun).finished.reason, FinishReason::MaxTokens);
}

#[test]
fn an_answer_fails_once_all_members_with_its_weights_are_given_up() {
    let pool = pool();
    let same = Frail::new(&pool, "same weights", "");
    let mut begun = pool.submit(request().ignore_eos(true)).unwrap();
    assert!(matches!(begun.next(), Some(Event::Token(_))));
    let other = Frail::new(&pool, "other weights", "");
    *other.proxy.terms.lock() = Some(Continuation::new(Continued::Identical, Fingerprint(1)));
    same.go_down();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(pool.stats().finished, 0, "its member may come back");
    same.give_up(&pool);
    assert!(lost(begun, true).ends_with("same weights is broken"));
    answers(&pool, request());
}

#[test]
fn other_models_are_served_on() {
    let pool = pool();
    let (a, b) = (Frail::new(&pool, "of a", "a"), Frail::new(&pool, "of b", "b"));
    a.go_down();
    b.go_down();
    let of_a = pool.submit(request().model("a")).unwrap();
    let of_b = pool.submit(request().model("b")).unwrap();
    a.give_up(&pool);
    assert!(lost(of_a, false).contains("of a is broken"));
    assert!(matches!(pool.submit(request().model("a")), Err(SubmitError::ModelFailed { .. })));
    assert!(matches!(pool.submit(request().model("c")), Err(SubmitError::UnknownModel { .. })));
    b.revive(&pool);
    assert_eq!(read(of_b).finished.reason, FinishReason::EndOfGeneration);
    answers(&pool, request());
}

#[test]
fn a_drained_member_stays_when_another_is_added() {
    let pool = pool();
    let _first = Frail::new(&pool, "first", "");
    assert!(pool.drain("first"));
    let second = Frail::new(&pool, "second", "");
    assert_eq!(pool.members().len(), 2);
    second.give_up(&pool);
    // The drained member is not given up: the request waits for it.
    let waits = pool.submit(request()).unwrap();
    assert!(pool.resume("first"));
    assert_eq!(read(waits).finished.reason, FinishReason::EndOfGeneration);
}
