//! Members that are not there yet.

use crate::read;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions, FinishReason, Generator, Request, SubmitError};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(5);

fn member(name: &str, text: &str) -> Member {
    let engine = Engine::start(ScriptedModel::echo(text).shared(), EngineOptions::default()).unwrap();
    Member::new(name, Arc::new(engine))
}

#[track_caller]
fn eventually(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Attempts to connect to a member, and a switch that lets them succeed.
#[derive(Clone, Default)]
struct Late {
    tries: Arc<AtomicUsize>,
    is_there: Arc<AtomicBool>,
}

impl Late {
    fn add_to(&self, pool: &Pool) {
        let late = self.clone();
        let connect = move || {
            late.tries.fetch_add(1, SeqCst);
            late.is_there.load(SeqCst).then(|| member("another name", "late"))
        };
        pool.add_later("late", INTERVAL, connect).unwrap();
    }
}

#[test]
fn a_member_joins_once_it_is_there() {
    let pool = Pool::new(PoolOptions::new()).unwrap();
    let late = Late::default();
    late.add_to(&pool);
    let listed = pool.members();
    assert!(
        listed.len() == 1 && listed[0].name == "late" && listed[0].missing && !listed[0].ready,
        "{listed:?}"
    );
    assert!(
        matches!(pool.submit(Request::text("x")), Err(SubmitError::Generator(_))),
        "no model is known yet"
    );
    eventually(|| late.tries.load(SeqCst) > 2);
    late.is_there.store(true, SeqCst);
    eventually(|| pool.members()[0].ready);
    let tries = late.tries.load(SeqCst);
    let seen = read(pool.submit(Request::text("x")).unwrap());
    assert_eq!(seen.finished.reason, FinishReason::EndOfGeneration);
    let listed = pool.members();
    assert!(listed.len() == 1 && listed[0].name == "late" && !listed[0].missing, "{listed:?}");
    std::thread::sleep(4 * INTERVAL);
    assert_eq!(late.tries.load(SeqCst), tries, "the search has ended");
}

#[test]
fn a_search_ends_with_its_entry() {
    type End = fn(&Pool);
    let ends: [(&str, End); 3] = [
        ("removed", |pool| assert!(pool.remove("late"))),
        ("replaced", |pool| pool.add(member("late", "now"))),
        ("at an end", |pool| pool.begin_shutdown()),
    ];
    for (what, end) in ends {
        let pool = Pool::new(PoolOptions::new()).unwrap();
        let late = Late::default();
        late.add_to(&pool);
        eventually(|| late.tries.load(SeqCst) > 0);
        end(&pool);
        eventually(|| !pool.members().iter().any(|member| member.missing));
        let tries = late.tries.load(SeqCst);
        late.is_there.store(true, SeqCst);
        std::thread::sleep(10 * INTERVAL);
        // One may be in progress at the end.
        assert!(late.tries.load(SeqCst) <= tries + 1, "{what}");
        assert!(pool.members().iter().all(|member| what == "replaced" && member.name == "late"), "{what}");
    }
}

#[test]
fn a_member_that_comes_too_late_is_not_added() {
    let pool = Pool::new(PoolOptions::new()).unwrap();
    let (began, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (beginning, waiting) = (began.clone(), go_on.clone());
    let connect = move || {
        beginning.store(true, SeqCst);
        while !waiting.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(member("late", "late"))
    };
    pool.add_later("late", INTERVAL, connect).unwrap();
    eventually(|| began.load(SeqCst));
    assert!(pool.remove("late") && !pool.remove("late"));
    go_on.store(true, SeqCst);
    std::thread::sleep(10 * INTERVAL);
    assert_eq!(pool.members(), []);
}

#[test]
fn requests_wait_for_a_member_that_is_looked_for() {
    let pool = Pool::new(PoolOptions::new()).unwrap();
    let given_up = || Some(SubmitError::ModelFailed { model: "scripted".into(), reason: "broken".into() });
    pool.add(member("broken", "x").ready(|| false).failed(given_up));
    assert!(matches!(pool.submit(Request::text("x")), Err(SubmitError::ModelFailed { .. })));
    let late = Late::default();
    late.add_to(&pool);
    let stream = pool.submit(Request::text("x")).unwrap();
    late.is_there.store(true, SeqCst);
    assert_eq!(read(stream).finished.reason, FinishReason::EndOfGeneration);
    assert_eq!(pool.models().len(), 1);
}

#[test]
fn a_search_that_panics_is_listed_no_more() {
    let pool = Pool::new(PoolOptions::new()).unwrap();
    pool.add_later("late", INTERVAL, || panic!("a mistake of the host")).unwrap();
    eventually(|| pool.members().is_empty());
}
