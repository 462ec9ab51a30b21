//! A team has one pool of threads. Alone in its file: it counts the threads of the process.
#![allow(clippy::unwrap_used)]

mod support;

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_conformance::harness::{feed, tokens, worst};
use exsa_core::backend::{ModelSource, Session, ThreadOptions, ThreadTeam};
use std::time::{Duration, Instant};
use support::{data, load_with};

/// Threads of this process; `None` where the system does not list them.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// The team's threads are started once, and outlive neither the team nor its last session.
#[test]
fn a_team_is_one_pool() {
    let Some(before) = threads() else { return };
    let count = std::thread::available_parallelism().unwrap().get().min(3);
    let team = ThreadTeam::new(ThreadOptions::compute(count));
    let model = load_with(&LlamaCppBackend::new(), &ModelSource::file(data("llama-f32.gguf")));
    let mut sessions: Vec<Box<dyn Session>> =
        (0..5).map(|_| model.session(&support::exact_options().team(&team)).unwrap()).collect();
    let expected = feed(&mut *support::session(&model), 0, 0, &tokens(30, 1), 1);
    for session in &mut sessions {
        let row = feed(&mut **session, 0, 0, &tokens(30, 1), 1);
        assert!(worst(&row[0], &expected[0]) < 1e-3);
    }
    // The caller is one of them.
    assert!(threads().unwrap() < before + count, "{before} and {count}: {:?}", threads());
    // The pool outlives the team's handle, and a session that is closed.
    drop(team);
    sessions.remove(0);
    feed(&mut *sessions[0], 0, 30, &[1], 1);
    drop(sessions);
    // The system may list a thread for a moment after it was joined.
    let start = Instant::now();
    while threads().unwrap() > before {
        assert!(start.elapsed() < Duration::from_secs(10), "{before}, {:?}", threads());
        std::thread::sleep(Duration::from_millis(1));
    }
}
