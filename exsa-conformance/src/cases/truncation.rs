//! Truncation and release.

use super::forks::lengths;
use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use crate::fixture::Fixture;
use exsa_core::SeqId;
use exsa_core::error::{KvError, StepError};

const SKIPPED: &str = "the session declares that it cannot truncate";

/// Tokens truncated at any length have no effect on later results.
pub fn truncate_then_go_on(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    if !run.capabilities().truncate {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let block = run.capabilities().block_tokens;
    let room = fixture.fitting(&run, 80);
    let more = (room / 4).min(10);
    let n = room - more;
    let (kept, rest) = (fixture.tokens(n, 1)?, fixture.tokens(more, 2)?);
    let neighbour = fixture.tokens(5, 3)?;
    let sequences = run.capabilities().sequences_max;
    if sequences > 1 {
        run.feed(1, 0, &neighbour, 0)?;
    }
    for len in lengths(block, n) {
        run.feed(0, 0, &kept, 0)?;
        let input = format!("{n} tokens, cut to {len}");
        check(clause::TRUNCATE, &input).works(run.truncate(0, len))?;
        // The sequence ends at the cut.
        if len < n {
            let beyond = run.try_pass(&[(0, n, &rest[..1], 1)]);
            let words = format!("StepError::Position {{ held: {len} }}");
            check(clause::TRUNCATE, format!("{input}, then a span at {n}")).refused(
                beyond,
                &words,
                |error| matches!(error, StepError::Position { held, .. } if *held == len),
            )?;
        }
        let rows = run.pass(&[(0, len, &rest, more)])?;
        let expected = plain(fixture, &[&kept[..len], &rest[..]].concat())?.split_off(len);
        check(clause::TRUNCATE, format!("{input}, then {more} other tokens")).same(
            &rows,
            &expected,
            fixture.row_tolerance(),
        )?;
        run.release(0);
    }
    if sequences > 1 {
        let rows = run.pass(&[(1, 5, &rest[..1], 1)])?;
        let expected = plain(fixture, &[&neighbour[..], &rest[..1]].concat())?.split_off(5);
        check(clause::TRUNCATE, "a neighbour of the sequence that was cut").same(
            &rows,
            &expected,
            fixture.tolerance,
        )?;
    }
    Ok(Outcome::Passed)
}

/// Repeated rollback of drafted tokens, as in speculative decoding.
pub fn truncate_again_and_again(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    if !run.capabilities().truncate {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let n = fixture.fitting(&run, 30);
    let tokens = fixture.tokens(n, 4)?;
    let whole = plain(fixture, &tokens)?;
    let wrong = fixture.tokens(n, 5)?;
    let mut at = 0;
    while at < n {
        // A draft of up to three tokens, the first correct.
        let len = 3.min(n - at);
        let mut draft = vec![tokens[at]];
        draft.extend_from_slice(&wrong[at..at + len - 1]);
        let rows = run.pass(&[(0, at, &draft, draft.len())])?;
        let input = format!("a draft of {} tokens at {at} of which the first is right", draft.len());
        check(clause::TRUNCATE, &input).same(
            &rows[..1].to_vec(),
            &whole[at..=at].to_vec(),
            fixture.tolerance,
        )?;
        at += 1;
        check(clause::TRUNCATE, &input).works(run.truncate(0, at))?;
    }
    Ok(Outcome::Passed)
}

/// Lengths beyond the sequence and unknown ids are refused; the current length changes nothing.
pub fn truncations_that_are_refused(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    if !run.capabilities().truncate {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let tokens = fixture.tokens(7, 1)?;
    run.feed(0, 0, &tokens[..6], 0)?;
    for len in [7, 1 << 20, usize::MAX] {
        let words = format!("KvError::Length {{ seq: 0, len: {len}, held: 6 }}");
        let check = check(clause::TRUNCATE_REFUSED, format!("6 tokens, cut to {len}"));
        check.refused(
            run.truncate(0, len),
            &words,
            |error| matches!(error, KvError::Length { seq: SeqId(0), len: l, held: 6 } if *l == len),
        )?;
    }
    let beyond = run.capabilities().sequences_max as u32;
    for seq in [beyond, u32::MAX] {
        let words = format!("KvError::Sequence of sequence {seq}");
        let check = check(clause::TRUNCATE_REFUSED, format!("sequence {seq} of {beyond}, cut to 0 and 1"));
        for len in [0, 1] {
            check.refused(
                run.truncate(seq, len),
                &words,
                |error| matches!(error, KvError::Sequence { seq: s, .. } if *s == SeqId(seq)),
            )?;
        }
    }
    check(clause::TRUNCATE, "6 tokens, cut to 6").works(run.truncate(0, 6))?;
    let rows = run.pass(&[(0, 6, &tokens[6..], 1)])?;
    let expected = plain(fixture, &tokens)?.split_off(6);
    check(clause::TRUNCATE_REFUSED, "the sequence after the refusals").same(
        &rows,
        &expected,
        fixture.tolerance,
    )?;
    Ok(Outcome::Passed)
}

/// A released sequence starts at 0 again without old state, and other
/// sequences are unaffected. Any id may be released, even twice.
pub fn release(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let sequences = run.capabilities().sequences_max as u32;
    let (first, second) = (fixture.tokens(9, 1)?, fixture.tokens(8, 2)?);
    let next = fixture.tokens(1, 3)?;
    run.feed(0, 0, &first, 0)?;
    if sequences > 1 {
        run.feed(1, 0, &second, 0)?;
    }
    for seq in [0, 0, sequences, sequences + 1, u32::MAX] {
        run.release(seq);
    }
    let words = "StepError::Position { seq: 0, held: 0 }";
    check(clause::RELEASE, "9 tokens, released, then a span at position 9").refused(
        run.try_pass(&[(0, 9, &next, 1)]),
        words,
        |error| matches!(error, StepError::Position { seq: SeqId(0), held: 0, .. }),
    )?;
    let rows = run.pass(&[(0, 0, &second, second.len())])?;
    let plain_second = plain(fixture, &second)?;
    check(clause::RELEASE, "9 tokens, released, then 8 others").same(
        &rows,
        &plain_second,
        fixture.tolerance,
    )?;
    if sequences > 1 {
        let rows = run.pass(&[(1, 8, &next, 1)])?;
        let expected = plain(fixture, &[&second[..], &next].concat())?.split_off(8);
        check(clause::RELEASE, "a neighbour of the released sequence").same(
            &rows,
            &expected,
            fixture.tolerance,
        )?;
    }
    Ok(Outcome::Passed)
}

/// Every id below `sequences_max` is empty at the start, including the highest.
pub fn every_sequence_is_empty_at_the_start(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let sequences = run.capabilities().sequences_max as u32;
    check(clause::EMPTY_AT_START, "a new session").holds(
        sequences > 0,
        "at least one sequence",
        sequences,
    )?;
    let token = fixture.tokens(1, 1)?;
    let expected = plain(fixture, &token)?;
    for seq in [sequences - 1, sequences / 2, 0] {
        let check = check(clause::EMPTY_AT_START, format!("sequence {seq} of {sequences} starts at 0"));
        let rows = check.works(run.try_pass(&[(seq, 0, &token, 1)]))?;
        check.same(&rows, &expected, fixture.tolerance)?;
        run.release(seq);
    }
    Ok(Outcome::Passed)
}
