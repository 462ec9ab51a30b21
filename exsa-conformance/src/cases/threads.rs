//! Thread counts, and sessions on several threads.

use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use crate::fixture::Fixture;
use crate::logits::Rows;
use exsa_core::backend::ThreadOptions;
use std::num::NonZeroUsize;

/// One, two, three and five threads give the same logits; bitwise if the fixture promises it.
pub fn results_by_number_of_threads(fixture: &Fixture) -> CaseResult {
    let n = fixture.fitting(&fixture.session()?, 40);
    let tokens = fixture.tokens(n, 1)?;
    let mut first: Option<Rows> = None;
    for threads in [1, 2, 3, 5] {
        let threads = ThreadOptions::new(NonZeroUsize::new(threads));
        let mut run = fixture.session_with(&fixture.options().threads(threads))?;
        let mut rows = run.feed(0, 0, &tokens[..n - 4], n - 4)?;
        for i in n - 4..n {
            rows.extend(run.pass(&[(0, i, &tokens[i..=i], 1)])?);
        }
        match &first {
            None => first = Some(rows),
            Some(first) => {
                let input = format!("{n} tokens with {threads:?} against one thread");
                check(clause::THREADS, input).same(&rows, first, fixture.row_tolerance())?;
            }
        }
    }
    Ok(Outcome::Passed)
}

/// Sessions of one model run concurrently on their own threads, and a session can move between threads.
pub fn sessions_on_several_threads(fixture: &Fixture) -> CaseResult {
    let n = fixture.fitting(&fixture.session()?, 24);
    let all: Vec<_> = (0..3).map(|i| fixture.tokens(n, 60 + i)).collect::<Result<_, _>>()?;
    let mut expected = Vec::new();
    for tokens in &all {
        expected.push(super::rows::plain(fixture, tokens)?);
    }
    let threads = ThreadOptions::new(NonZeroUsize::new(2));
    let mut runs = Vec::new();
    for _ in &all {
        runs.push(fixture.session_with(&fixture.options().threads(threads))?);
    }
    for round in 0..3 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let work = runs.iter_mut().zip(&all).map(|(run, tokens)| {
                scope.spawn(move || {
                    let mut rows = Rows::new();
                    for (i, piece) in tokens.chunks(5).enumerate() {
                        rows.extend(run.feed(0, i * 5, piece, piece.len())?);
                    }
                    run.release(0);
                    Ok::<_, crate::Failure>(rows)
                })
            });
            let work: Vec<_> = work.collect();
            work.into_iter().map(|thread| thread.join()).collect()
        });
        for (i, result) in results.into_iter().enumerate() {
            let check = check(
                clause::OWN_KV,
                format!("round {round}, session {i} of three that work at the same time"),
            );
            let rows = result.map_err(|_| check.fail("no panic", "a panic"))??;
            check.same(&rows, &expected[i], fixture.tolerance)?;
        }
    }
    Ok(Outcome::Passed)
}

/// A session works after the last other handle of its model is dropped.
pub fn session_outlives_the_model_handle(fixture: &Fixture) -> CaseResult {
    let check = check(clause::MODEL, "a session after the model's handle was dropped");
    let mut progress = exsa_core::backend::LoadProgress::none();
    let model = check.works(fixture.backend.load(&fixture.source, &fixture.load_options, &mut progress))?;
    let (n_vocab, tokenizer) = (model.info().n_vocab, model.tokenizer());
    let mut run = crate::run::Run::new(check.works(model.session(&fixture.options()))?, n_vocab);
    drop(model);
    let tokens = fixture.tokens(6, 1)?;
    let rows = run.pass(&[(0, 0, &tokens, 6)])?;
    check.same(&rows, &super::rows::plain(fixture, &tokens)?, fixture.tolerance)?;
    check.holds(tokenizer.n_vocab() > 0, "a tokenizer that still works", tokenizer.n_vocab())?;
    Ok(Outcome::Passed)
}
