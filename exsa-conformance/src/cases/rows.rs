//! Rows of logits: number, order and determinism.

use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use crate::fixture::Fixture;
use crate::logits::{Rows, difference};

/// Tests the fixture: changing an earlier token changes a row by far more than the tolerance, so that the
/// comparisons of other cases can fail. All logits are finite.
pub fn contexts_are_told_apart(fixture: &Fixture) -> CaseResult {
    let run = fixture.session()?;
    let tokens = fixture.tokens(fixture.fitting(&run, 24), 1)?;
    let plain = plain(fixture, &tokens)?;
    let finite = plain.iter().flatten().all(|logit| logit.is_finite());
    check(clause::ROWS, "24 tokens").holds(finite, "finite logits", "one that is not")?;
    for changed in [0, tokens.len() / 2, tokens.len() - 2] {
        let mut other = tokens.clone();
        other[changed] = fixture.tokens(64, 2)?.into_iter().find(|t| *t != tokens[changed]).unwrap_or(0);
        let rows = self::plain(fixture, &other)?;
        let last = rows.len() - 1;
        let check =
            check(clause::FIXTURE, format!("token {changed} of {} replaced by another", tokens.len()));
        let difference = difference(&rows[last], &plain[last]);
        let least = 5.0 * fixture.tolerance;
        check.holds(
            difference > least,
            &format!("the last row changes by more than {least:e}"),
            difference,
        )?;
    }
    Ok(Outcome::Passed)
}

/// Logits of every token of a sequence alone in its own session.
pub(super) fn plain(fixture: &Fixture, tokens: &[u32]) -> Result<Rows, crate::Failure> {
    fixture.session()?.feed(0, 0, tokens, tokens.len())
}

/// Spans request no row, one, some and all: they get exactly the rows of their last tokens, in batch order.
pub fn rows_asked_for(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let n = fixture.fitting(&run, 80) / 4;
    let sequences = run.capabilities().sequences_max.min(4);
    let all: Vec<_> = (0..4).map(|seed| fixture.tokens(n, 10 + seed)).collect::<Result<_, _>>()?;
    let asked = [0, n, 1, n.min(3)];
    let parts: Vec<_> = (0..sequences).map(|i| (i as u32, 0, all[i].as_slice(), asked[i])).collect();
    let rows = run.pass(&parts)?;
    let mut expected = Rows::new();
    for i in 0..sequences {
        expected.extend(plain(fixture, &all[i])?.split_off(n - asked[i]));
    }
    let case = check(clause::ROWS, crate::run::describe(&parts));
    case.same(&rows, &expected, fixture.tolerance)?;
    // The sequence without a requested row still holds its tokens.
    let next = fixture.tokens(1, 5)?;
    let rows = run.pass(&[(0, n, &next, 1)])?;
    let expected = plain(fixture, &[&all[0][..], &next].concat())?.split_off(n);
    check(clause::APPEND, "one token after a span that asked for no rows").same(
        &rows,
        &expected,
        fixture.tolerance,
    )?;
    Ok(Outcome::Passed)
}

/// A batch without tokens gives zero rows of the usual width.
pub fn empty_batch(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let check = check(clause::ROWS, "a batch without tokens");
    let n_vocab = fixture.model()?.info().n_vocab;
    let batch = exsa_core::batch::Batch::new();
    let output = check.works(run.session.forward(&batch))?;
    check.equal((output.rows(), output.logits().map(|logits| logits.n_vocab())), (0, Some(n_vocab)))?;
    // Rows of an earlier pass are not lent again.
    let tokens = fixture.tokens(2, 1)?;
    run.pass(&[(0, 0, &tokens, 2)])?;
    let output = check.works(run.session.forward(&batch))?;
    check.equal((output.rows(), output.logits().map(|logits| logits.n_vocab())), (0, Some(n_vocab)))?;
    Ok(Outcome::Passed)
}

/// The same passes yield the same bits: in the same session after a release, in another session, and with
/// another sequence id.
pub fn determinism(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let n = fixture.fitting(&run, 40);
    let tokens = fixture.tokens(n, 3)?;
    let passes = |run: &mut crate::run::Run, seq: u32| {
        let mut rows = run.feed(seq, 0, &tokens[..n / 2], n / 2)?;
        for (i, token) in tokens[n / 2..].iter().enumerate() {
            rows.extend(run.pass(&[(seq, n / 2 + i, &[*token], 1)])?);
        }
        run.release(seq);
        Ok::<_, crate::Failure>(rows)
    };
    let first = passes(&mut run, 0)?;
    let last = run.capabilities().sequences_max as u32 - 1;
    for (what, rows) in [
        ("again in the same session", passes(&mut run, 0)?),
        ("in another session", passes(&mut fixture.session()?, 0)?),
        ("of the highest sequence id", passes(&mut run, last)?),
    ] {
        let input = format!("a prefill of {} tokens and {} decodes, {what}", n / 2, n - n / 2);
        check(clause::SAME_AGAIN, input).same(&rows, &first, 0.0)?;
    }
    Ok(Outcome::Passed)
}
