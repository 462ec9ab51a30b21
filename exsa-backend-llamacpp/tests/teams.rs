//! Several sessions, engines and models on one thread team.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_conformance::harness::{feed, greedy, tokens, worst};
use exsa_core::SeqId;
use exsa_core::backend::{KvType, ModelSource, SessionOptions, ThreadOptions, ThreadTeam};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::StepError;
use support::{data, exact, load_with};

const TEAM_THREADS: usize = 2;

fn on(team: &ThreadTeam) -> SessionOptions {
    SessionOptions::new().kv_type(KvType::F32).team(team)
}

/// Passes of many threads, on sessions of two models that come and go, are what they are alone.
#[test]
fn sessions_at_once_compute_as_alone() {
    let models = ["llama-f32", "qwen3-f32"]
        .map(|name| load_with(&exact(), &ModelSource::file(data(&format!("{name}.gguf")))));
    let team = ThreadTeam::new(ThreadOptions::compute(TEAM_THREADS));
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let (model, team) = (&models[worker % 2], team.clone());
            scope.spawn(move || {
                let prompt = tokens(20 + worker, worker as u32);
                let alone = greedy(&mut *support::session(model), 0, &prompt, 12);
                for _ in 0..3 {
                    let mut session = model.session(&on(&team)).unwrap();
                    drop(model.session(&on(&team)).unwrap());
                    assert_eq!(greedy(&mut *session, 0, &prompt, 12), alone, "worker {worker}");
                }
            });
        }
    });
}

/// A pass that is refused or interrupted gives the team back.
#[test]
fn errors_give_the_team_back() {
    let model = load_with(&exact(), &ModelSource::file(data("llama-f32.gguf")));
    let team = ThreadTeam::new(ThreadOptions::compute(TEAM_THREADS));
    let (first, second) = (on(&team), on(&team).kv_tokens(64));
    let interrupt = first.interrupt.clone();
    let mut first = model.session(&first).unwrap();
    let mut second = model.session(&second).unwrap();
    interrupt.raise();
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[1, 2, 3]).rows(1));
    assert!(matches!(first.forward(&batch), Err(StepError::Interrupted)));
    let mut long = Batch::new();
    long.push(Span::tokens(SeqId(0), 0, &tokens(65, 1)).rows(1));
    assert!(second.forward(&long).is_err());
    interrupt.clear();
    let rows = [&mut first, &mut second].map(|session| feed(&mut **session, 0, 0, &[1, 2, 3], 1).remove(0));
    assert!(worst(&rows[0], &rows[1]) < 1e-3);
}

/// The team decides the number of threads: more for prefill are cut, and a number out of range is refused.
#[test]
fn the_team_decides_the_threads() {
    let many = std::num::NonZeroUsize::new(64).unwrap();
    let model = load_with(&exact().prefill_threads(many), &ModelSource::file(data("llama-f32.gguf")));
    let team = ThreadTeam::new(ThreadOptions::compute(1));
    let expected = greedy(&mut *support::session(&model), 0, &tokens(40, 1), 8);
    let mut session = model.session(&on(&team).threads(ThreadOptions::compute(100_000))).unwrap();
    assert_eq!(greedy(&mut *session, 0, &tokens(40, 1), 8), expected);
    let team = ThreadTeam::new(ThreadOptions::compute(100_000));
    let error = model.session(&on(&team)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("threads.compute") && error.contains("100000"), "{error}");
}
