//! Sessions on one thread team.
//!
//! A binary of its own with a single test, because it counts the threads of the process.
#![allow(clippy::unwrap_used)]

mod support;

use exsa_conformance::harness::feed;
use exsa_core::backend::{Model, SessionOptions, ThreadOptions, ThreadTeam};
use std::sync::Arc;
use support::{data, load};

const THREADS: usize = 3;

fn tokens(n: u32, seed: u32) -> Vec<u32> {
    (0..n).map(|i| 3 + (i * 37 + seed * 11) % 500).collect()
}

/// Logits of a prompt in chunks and of some decodes.
fn run(model: &Arc<dyn Model>, options: &SessionOptions, seed: u32) -> Vec<Vec<f32>> {
    let mut session = model.session(options).unwrap();
    let tokens = tokens(150, seed);
    let mut rows = Vec::new();
    for (i, chunk) in tokens[..130].chunks(50).enumerate() {
        rows.extend(feed(&mut *session, 0, i * 50, chunk, chunk.len()));
    }
    for (i, token) in tokens[130..].iter().enumerate() {
        rows.extend(feed(&mut *session, 0, 130 + i, &[*token], 1));
    }
    rows
}

#[cfg(target_os = "linux")]
fn process_threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn two_sessions_compute_on_one_team_as_they_do_alone() {
    let models = ["llama-q8_0", "qwen2-f32"].map(|name| load(data(&format!("{name}.gguf"))));
    let alone = SessionOptions::new().threads(ThreadOptions::compute(THREADS));
    let expected = [run(&models[0], &alone, 1), run(&models[1], &alone, 2)];
    let team = ThreadTeam::new(ThreadOptions::compute(THREADS));
    let shared = SessionOptions::new().team(&team);
    #[cfg(target_os = "linux")]
    let before = process_threads();
    // The team is started once, whatever the number of its sessions.
    let _sessions = [0, 1, 0].map(|i: usize| models[i].session(&shared).unwrap());
    #[cfg(target_os = "linux")]
    assert_eq!(process_threads(), before + THREADS - 1);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let (models, shared) = (&models, &shared);
            let running = [0, 1].map(|i| scope.spawn(move || run(&models[i], shared, i as u32 + 1)));
            for (running, expected) in running.into_iter().zip(&expected) {
                assert!(running.join().unwrap() == *expected, "the bits of a session with its own team");
            }
        });
    }
    #[cfg(target_os = "linux")]
    assert_eq!(process_threads(), before + THREADS - 1);
}
