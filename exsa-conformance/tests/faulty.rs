//! The faulty backend: without faults it behaves like the decorated one, and each fault has its documented
//! effect.
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_conformance::Fixture;
use exsa_conformance::faulty::{Effect, Faults, FaultyBackend, FaultyModel, Operation, When};
use exsa_core::SeqId;
use exsa_core::backend::{Model, ModelSource, Session, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{KvError, StepError};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

fn without_faults() -> Fixture {
    let backend = ScriptedBackend::new(ScriptedModel::ngram(1).order(usize::MAX).context(96).kv(1024, 8));
    let backend = FaultyBackend::new(backend, Faults::new());
    Fixture::new(backend, ModelSource::Embedded(b"")).reads_no_files().bitwise().checksummed()
}

exsa_conformance::mount! {
    without_faults: without_faults(),
}

fn session(faults: &Faults) -> Box<dyn Session> {
    FaultyModel::new(ScriptedModel::ngram(1).shared(), faults.clone())
        .session(&SessionOptions::default())
        .unwrap()
}

/// Sequences of two tokens each, with one row requested.
fn batch(sequences: u32) -> Batch {
    let mut batch = Batch::new();
    (0..sequences).for_each(|seq| batch.push(Span::tokens(SeqId(seq), 0, &[65 + seq, 66]).rows(1)));
    batch
}

#[test]
fn faults_of_kv_operations() {
    let faults = Faults::new();
    let mut session = session(&faults);
    session.forward(&batch(1)).unwrap();
    let mut saved = Vec::new();
    session.save(SeqId(0), &mut saved).unwrap();
    let on_purpose = |result: Result<(), KvError>| {
        assert!(matches!(&result, Err(KvError::Backend(text)) if text.contains("on purpose")), "{result:?}");
    };
    for operation in [Operation::Fork, Operation::Save, Operation::Restore, Operation::Truncate] {
        faults.add(When::Always(operation), Effect::Fail);
    }
    on_purpose(session.fork(SeqId(0), SeqId(1), 2));
    on_purpose(session.save(SeqId(0), &mut Vec::new()));
    on_purpose(session.restore(SeqId(1), &mut saved.as_slice()).map(|_| ()));
    on_purpose(session.truncate(SeqId(0), 1));
    assert_eq!(faults.fired(), 4);
    // Nothing was done.
    faults.clear();
    session.fork(SeqId(0), SeqId(1), 2).unwrap();
    faults.add(When::Nth(Operation::Fork, faults.calls(Operation::Fork) + 1), Effect::FailLate);
    on_purpose(session.fork(SeqId(0), SeqId(2), 2));
    // A late failure: the work was done nevertheless.
    assert!(matches!(session.fork(SeqId(0), SeqId(2), 2), Err(KvError::Sequence { .. })));
    faults.add(When::Always(Operation::Release), Effect::Fail);
    session.release(SeqId(2));
    assert!(matches!(session.fork(SeqId(0), SeqId(2), 2), Err(KvError::Sequence { .. })), "it was forgotten");
}

#[test]
fn faults_of_rows() {
    let rows = |effect: Effect, when: When| {
        let faults = Faults::new().with(when, effect);
        let mut session = session(&faults);
        let batch = batch(3);
        let logits = session.forward(&batch).unwrap().logits().unwrap();
        let nan: Vec<usize> =
            (0..logits.rows()).filter(|row| logits.row(*row).unwrap().iter().any(|x| x.is_nan())).collect();
        (logits.rows(), logits.n_vocab(), nan)
    };
    let always = When::Always(Operation::Forward);
    assert_eq!(rows(Effect::NotANumber, always), (3, 258, vec![0, 1, 2]));
    assert_eq!(rows(Effect::NotANumber, When::Sequence(SeqId(1))), (3, 258, vec![1]));
    assert_eq!(rows(Effect::NotANumber, When::Token(67)), (3, 258, vec![2]));
    assert_eq!(rows(Effect::NotANumber, When::Token(99)), (3, 258, vec![]));
    assert_eq!(rows(Effect::NoRows, always), (0, 258, vec![]));
    assert_eq!(rows(Effect::RowMissing, always), (2, 258, vec![]));
    assert_eq!(rows(Effect::RowTooMany, always), (4, 258, vec![]));
    assert_eq!(rows(Effect::NarrowRows, always), (3, 257, vec![]));
}

#[test]
fn faults_of_passes() {
    let faults = Faults::new().with(When::Nth(Operation::Forward, 2), Effect::FailLate);
    faults.add(When::Sequence(SeqId(1)), Effect::Fail);
    faults.add(When::Nth(Operation::Forward, 4), Effect::Panic);
    let mut session = session(&faults);
    session.forward(&batch(1)).unwrap();
    session.release(SeqId(0));
    assert!(matches!(session.forward(&batch(1)), Err(StepError::Backend(_))));
    // The work was done nevertheless.
    assert!(matches!(session.forward(&batch(2)), Err(StepError::Sequence { seq: SeqId(1), .. })));
    session.release(SeqId(0));
    let panicked = catch_unwind(AssertUnwindSafe(|| session.forward(&batch(1)).map(|_| ())));
    assert!(panicked.is_err());
    session.forward(&batch(1)).unwrap();
}

#[test]
fn stalls_and_hangs() {
    let (stall, hang) = (Duration::from_millis(30), Duration::from_secs(30));
    let faults = Faults::new().with(When::Nth(Operation::Forward, 1), Effect::Stall(stall));
    faults.add(When::Nth(Operation::Forward, 2), Effect::Hang(hang));
    let options = SessionOptions::default();
    let model = FaultyModel::new(ScriptedModel::ngram(1).shared(), faults);
    let mut session = model.session(&options).unwrap();
    let start = Instant::now();
    session.forward(&batch(1)).unwrap();
    assert!(start.elapsed() >= stall);
    session.release(SeqId(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(stall);
            options.interrupt.raise();
        });
        assert!(matches!(session.forward(&batch(1)), Err(StepError::Interrupted)));
    });
    assert!(start.elapsed() < hang);
}
