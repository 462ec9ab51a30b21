//! Tests of the test suite: mutants of the scripted backend, and the cases that detect them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backend;
mod mutant;
mod session;
mod tokenizer;

use backend::MutantBackend;
use exsa_conformance::{CASES, Fixture, Outcome};
use exsa_core::backend::ModelSource;
use exsa_core::gguf::{GgufWriter, Value};
use mutant::{DETECTED, Mutant};
use std::collections::BTreeSet;

fn fixture(mutant: Mutant) -> Fixture {
    let fixture = Fixture::new(MutantBackend::new(mutant), ModelSource::Memory(file().into()));
    let adapter = |bytes: &'static [u8]| ModelSource::Embedded(bytes);
    let fixture = fixture.bitwise().checksummed().adapters(adapter(b"one"), adapter(b"two"));
    if mutant == Mutant::AnyFile { fixture } else { fixture.reads_no_files() }
}

/// A file that a backend would have to read.
fn file() -> Vec<u8> {
    GgufWriter::new()
        .key("general.architecture", Value::Str("llama".into()))
        .key("llama.block_count", Value::U32(1))
        .tensor_f32("token_embd.weight", &[4, 4], &[0.5; 16])
        .tensor_f32("blk.0.attn_norm.weight", &[4], &[0.5; 4])
        .to_bytes()
}

/// Names of the cases that fail.
fn failing(mutant: Mutant, wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let fixture = fixture(mutant);
    let fails = |case: &exsa_conformance::Case| (case.run)(&fixture).is_err();
    CASES.iter().filter(|case| wanted(case.name) && fails(case)).map(|case| case.name).collect()
}

#[test]
fn the_sound_one_passes() {
    assert_eq!(failing(Mutant::Sound, |_| true), Vec::<&str>::new());
}

#[test]
fn every_mistake_is_noticed() {
    let mut missed = Vec::new();
    for (mutant, cases) in DETECTED {
        let failing = failing(*mutant, |name| cases.contains(&name));
        missed.extend(cases.iter().filter(|case| !failing.contains(case)).map(|case| (mutant, case)));
    }
    assert!(missed.is_empty(), "mistakes, and cases that do not notice them: {missed:?}");
}

#[test]
fn every_case_notices_some_mistake() {
    let all: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    let noticing: BTreeSet<_> = DETECTED.iter().flat_map(|(_, cases)| cases.iter().copied()).collect();
    let unknown: Vec<_> = noticing.difference(&all).collect();
    assert!(unknown.is_empty(), "no such cases: {unknown:?}");
    // It needs a file that the backend really reads.
    let never: Vec<_> =
        all.difference(&noticing).filter(|case| **case != "sources_give_the_same_model").collect();
    assert!(never.is_empty(), "never seen to fail: {never:?}");
}

/// A failure names the clause, the input, the expected value and the one found.
#[test]
fn failures_are_readable() {
    for (mutant, cases) in DETECTED {
        let fixture = fixture(*mutant);
        for case in CASES.iter().filter(|case| cases.contains(&case.name)) {
            let Err(failure) = (case.run)(&fixture) else { continue };
            let text = failure.to_string();
            for part in ["clause: ", "input: ", "expected: ", "found: "] {
                let rest = text.split(part).nth(1).expect(part);
                assert!(!rest.lines().next().unwrap().trim().is_empty(), "{text}");
            }
            assert!(text.len() < 1200, "{mutant:?}: {text}");
            assert_eq!(text, format!("{failure:?}"));
        }
    }
}

#[test]
fn skips_have_reasons() {
    let fixture = fixture(Mutant::Sound);
    let skipped = CASES.iter().filter_map(|case| match (case.run)(&fixture) {
        Ok(Outcome::Skipped(reason)) => Some((case.name, reason)),
        _ => None,
    });
    let skipped: Vec<_> = skipped.collect();
    assert!(skipped.iter().all(|(_, reason)| !reason.is_empty()));
    assert_eq!(skipped.len(), 7, "those that are about files: {skipped:?}");
}
