//! Sequences that share a prefix.

use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use crate::fixture::Fixture;
use crate::run::Run;
use exsa_core::SeqId;
use exsa_core::error::KvError;

/// A session that can fork, or the reason for a skip.
fn forking(fixture: &Fixture) -> Result<Result<Run, Outcome>, crate::Failure> {
    let run = fixture.session()?;
    if !run.capabilities().fork {
        return Ok(Err(Outcome::Skipped("the session declares that it cannot fork".into())));
    }
    if run.capabilities().sequences_max < 3 {
        return Ok(Err(Outcome::Skipped("three sequences are required".into())));
    }
    Ok(Ok(run))
}

/// Lengths around block boundaries, up to `n`.
pub(super) fn lengths(block: usize, n: usize) -> Vec<usize> {
    let mut lengths = vec![0, 1, 2, block.saturating_sub(1), block, block + 1, 2 * block, n / 2, n - 1, n];
    lengths.retain(|len| *len <= n);
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// A fork of a fork at every length; all three continue differently in one batch, each as if alone.
pub fn fork_then_diverge(fixture: &Fixture) -> CaseResult {
    let mut run = match forking(fixture)? {
        Ok(run) => run,
        Err(skipped) => return Ok(skipped),
    };
    let block = run.capabilities().block_tokens;
    let room = fixture.fitting(&run, 90);
    // Long enough to cross a block or an attention window after the fork.
    let more = (room / 4).min(20);
    let n = room - more - 1;
    let prefix = fixture.tokens(n, 1)?;
    let rest: Vec<_> = (0..3).map(|i| fixture.tokens(more + 1, 30 + i)).collect::<Result<_, _>>()?;
    let (next, rest): (Vec<_>, Vec<_>) = rest.iter().map(|tokens| (&tokens[more..], &tokens[..more])).unzip();
    for len in lengths(block, n) {
        run.feed(0, 0, &prefix, 0)?;
        let input = format!("{n} tokens, of which {len} are forked to sequence 1, and from there to 2");
        check(clause::FORK, &input).works(run.fork(0, 1, len))?;
        check(clause::FORK, &input).works(run.fork(1, 2, len))?;
        let rows = run.pass(&[(1, len, rest[1], more), (0, n, rest[0], more), (2, len, rest[2], more)])?;
        let input = format!("{input}; then all three go on, each with other tokens");
        for (i, (seq, len)) in [(1, len), (0, n), (2, len)].into_iter().enumerate() {
            let expected = plain(fixture, &[&prefix[..len], rest[seq]].concat())?.split_off(len);
            let found = rows[more * i..more * (i + 1)].to_vec();
            check(clause::FORK, format!("{input}; sequence {seq}")).same(
                &found,
                &expected,
                fixture.row_tolerance(),
            )?;
        }
        run.release(0);
        let rows = run.pass(&[(2, len + more, next[2], 1)])?;
        let expected = plain(fixture, &[&prefix[..len], rest[2], next[2]].concat())?.split_off(len + more);
        check(clause::FORK, format!("{input}; then 0 is released, and 2 goes on")).same(
            &rows,
            &expected,
            fixture.row_tolerance(),
        )?;
        (0..3).for_each(|seq| run.release(seq));
    }
    Ok(Outcome::Passed)
}

/// A fork survives when its source is released, truncated, or replaced by another sequence.
pub fn fork_outlives_its_source(fixture: &Fixture) -> CaseResult {
    let mut run = match forking(fixture)? {
        Ok(run) => run,
        Err(skipped) => return Ok(skipped),
    };
    let block = run.capabilities().block_tokens;
    let n = fixture.fitting(&run, 60) - 4;
    let (prefix, rest, other) = (fixture.tokens(n, 1)?, fixture.tokens(3, 2)?, fixture.tokens(n, 3)?);
    for len in lengths(block, n).into_iter().filter(|len| *len > 0) {
        let expected = plain(fixture, &[&prefix[..len], &rest[..]].concat())?.split_off(len);
        for cut in [0, len / 2] {
            if cut > 0 && !run.capabilities().truncate {
                continue;
            }
            run.feed(0, 0, &prefix, 0)?;
            let input =
                format!("{n} tokens, {len} forked, then the source is cut to {cut} and goes on otherwise");
            let check = check(clause::FORK, input);
            check.works(run.fork(0, 1, len))?;
            if cut == 0 {
                run.release(0);
            } else {
                check.works(run.truncate(0, cut))?;
            }
            run.feed(0, cut, &other[cut..], 0)?;
            let rows = run.pass(&[(1, len, &rest, 3)])?;
            check.same(&rows, &expected, fixture.tolerance)?;
            run.release(0);
            run.release(1);
        }
    }
    Ok(Outcome::Passed)
}

/// Invalid forks are refused without a change.
pub fn forks_that_are_refused(fixture: &Fixture) -> CaseResult {
    let mut run = match forking(fixture)? {
        Ok(run) => run,
        Err(skipped) => return Ok(skipped),
    };
    let beyond = run.capabilities().sequences_max as u32;
    let (held, other) = (fixture.tokens(6, 1)?, fixture.tokens(4, 2)?);
    run.feed(0, 0, &held, 0)?;
    run.feed(1, 0, &other, 0)?;
    let sequence =
        |id: u32| move |error: &KvError| matches!(error, KvError::Sequence { seq, .. } if *seq == SeqId(id));
    for (from, to, len, blamed) in [
        (0, 1, 3, 1),
        (0, 1, 0, 1),
        (0, 0, 3, 0),
        (0, 0, 6, 0),
        (0, beyond, 3, beyond),
        (0, u32::MAX, 3, u32::MAX),
        (beyond, 2, 0, beyond),
        (u32::MAX, 2, 1, u32::MAX),
    ] {
        let input = format!(
            "fork {len} tokens from sequence {from} to {to}; 0 holds 6, 1 holds 4, ids end at {beyond}"
        );
        let words = format!("KvError::Sequence of sequence {blamed}");
        check(clause::FORK_REFUSED, input).refused(run.fork(from, to, len), &words, sequence(blamed))?;
    }
    for (from, len, holds) in [(0, 7, 6), (0, usize::MAX, 6), (2, 1, 0)] {
        let to = if from == 2 { 0 } else { 2 };
        if from == 2 {
            run.release(0);
        }
        let input = format!("fork {len} tokens from sequence {from}, which holds {holds}");
        let words = format!("KvError::Length {{ seq: {from}, len: {len}, held: {holds} }}");
        check(clause::FORK_REFUSED, input).refused(run.fork(from, to, len), &words, |error| {
            matches!(error, KvError::Length { seq, len: l, held } if *seq == SeqId(from) && *l == len && *held == holds)
        })?;
    }
    let rows = run.pass(&[(1, 4, &held[..1], 1), (2, 0, &held[..1], 1)])?;
    let expected = plain(fixture, &[&other[..], &held[..1]].concat())?.split_off(4);
    let expected = [expected, plain(fixture, &held[..1])?].concat();
    check(clause::FORK_REFUSED, "the sequences after the refusals").same(
        &rows,
        &expected,
        fixture.tolerance,
    )?;
    Ok(Outcome::Passed)
}

/// An operation that the flags exclude is refused without a change.
pub fn flags_tell_the_truth(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let capabilities = run.capabilities().clone();
    let tokens = fixture.tokens(6, 1)?;
    run.feed(0, 0, &tokens, 0)?;
    let mut offered = Vec::new();
    let mut flag = |name: &'static str, flag: bool, result: Result<(), KvError>| {
        if flag {
            offered.push(name);
            return check(clause::FLAGS, format!("{name}, where its flag is set")).works(result);
        }
        let words = format!("KvError::Unsupported(\"{name}\")");
        check(clause::FLAGS, format!("{name}, where its flag is not set")).refused(
            result,
            &words,
            |error| matches!(error, KvError::Unsupported(what) if *what == name),
        )
    };
    if capabilities.sequences_max > 1 {
        flag("fork", capabilities.fork, run.fork(0, 1, 4))?;
        run.release(1);
        let saved = run.save(0);
        let bytes = saved.as_ref().map_or(vec![0; 64], Clone::clone);
        flag("save", capabilities.save, saved.map(|_| ()))?;
        flag("restore", capabilities.save, run.restore(1, &bytes).map(|_| ()))?;
    }
    let cut = run.truncate(0, 4);
    let held = if cut.is_ok() { 4 } else { 6 };
    flag("truncate", capabilities.truncate, cut)?;
    let rows = run.pass(&[(0, held, &tokens[..1], 1)])?;
    let expected = plain(fixture, &[&tokens[..held], &tokens[..1]].concat())?.split_off(held);
    let input = format!("the sequence afterwards; offered: {offered:?}");
    check(clause::FLAGS, input).same(&rows, &expected, fixture.tolerance)?;
    check(clause::CAPABILITIES, "the capabilities after a few operations")
        .equal(run.capabilities(), &capabilities)?;
    Ok(Outcome::Passed)
}
