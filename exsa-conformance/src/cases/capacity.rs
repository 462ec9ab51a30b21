//! Capacity of the KV cache, by the block rule.

use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::run::{Part, Run};
use exsa_core::error::StepError;

/// Lengths of sequences that together hold every block; `None` if there are too few sequences.
pub(super) fn fill(run: &Run) -> Option<Vec<usize>> {
    let capabilities = run.capabilities();
    let block = capabilities.block_tokens;
    let longest = capabilities.context_tokens_max / block * block;
    let mut left = capabilities.kv_tokens_max;
    let mut lengths = Vec::new();
    while left > 0 && longest > 0 && lengths.len() < capabilities.sequences_max {
        // At least two sequences, if there are several blocks.
        let half = (capabilities.kv_tokens_max / 2).div_ceil(block) * block;
        lengths.push(left.min(longest).min(half.max(block)));
        left -= lengths[lengths.len() - 1];
    }
    (left == 0 && lengths.len() > 1).then_some(lengths)
}

/// Requires that `parts` are refused for lack of exactly these blocks.
fn full(
    run: &mut Run,
    parts: &[Part<'_>],
    (needed, free): (usize, usize),
    input: &str,
) -> Result<(), Failure> {
    let words = format!("StepError::KvFull {{ needed: {needed}, free: {free} }}");
    check(clause::KV_FULL, input).refused(
        run.try_pass(parts),
        &words,
        |error| matches!(error, StepError::KvFull { needed: n, free: f } if (*n, *f) == (needed, free)),
    )
}

/// All blocks can be filled; then a token that needs another
/// block is refused without a change, and a release makes room.
pub fn kv_capacity_reached(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session_of_blocks(4)?;
    let capabilities = run.capabilities().clone();
    let Some(lengths) = fill(&run) else {
        return Ok(Outcome::Skipped("the sequences are too short or too few to fill the KV cache".into()));
    };
    let Some(empty) = (lengths.len() < capabilities.sequences_max).then_some(lengths.len() as u32) else {
        return Ok(Outcome::Skipped("no sequence is left when the KV cache is full".into()));
    };
    let input = format!(
        "{} tokens of KV in blocks of {}, filled by sequences of {lengths:?} tokens",
        capabilities.kv_tokens_max, capabilities.block_tokens
    );
    let mut all = Vec::new();
    // All but one token of the first sequence, and then that token: the last slot is usable too.
    for (seq, len) in lengths.iter().enumerate() {
        all.push(fixture.tokens(*len, seq as u64)?);
        let keep = usize::from(seq == 0);
        check(clause::BLOCKS, &input).works(feed(&mut run, seq as u32, 0, &all[seq][..len - keep]))?;
    }
    let last = lengths[0] - 1;
    let rows = run.pass(&[(0, last, &all[0][last..], 1)])?;
    let first = plain(fixture, &all[0])?;
    check(clause::ROW_ALONE, &input).same(&rows, &first[last..].to_vec(), fixture.tolerance)?;
    let one = fixture.tokens(1, 9)?;
    for batch in [vec![(empty, 0, &one[..], 1)], vec![(empty, 0, &one[..], 0)]] {
        full(&mut run, &batch, (1, 0), &format!("{input}; then one token of an empty sequence"))?;
    }
    run.release(lengths.len() as u32 - 1);
    let input = format!("{input}; the last is released, and an empty sequence gets one token");
    let rows = check(clause::MEMORY, &input).works(run.try_pass(&[(empty, 0, &one, 1)]))?;
    check(clause::ROW_ALONE, &input).same(&rows, &plain(fixture, &one)?, fixture.tolerance)?;
    // The first sequence is unchanged: cut by one token, it gives its last row again.
    if capabilities.truncate && run.truncate(0, last).is_ok() {
        let rows = run.pass(&[(0, last, &all[0][last..], 1)])?;
        check(clause::KV_FULL, "a sequence beside the one that did not fit").same(
            &rows,
            &first[last..].to_vec(),
            fixture.tolerance,
        )?;
    }
    Ok(Outcome::Passed)
}

fn feed(run: &mut Run, seq: u32, position: usize, tokens: &[u32]) -> Result<(), StepError> {
    let step = run.capabilities().batch_tokens_max.max(1);
    for (i, chunk) in tokens.chunks(step).enumerate() {
        run.try_pass(&[(seq, position + i * step, chunk, 0)])?;
    }
    Ok(())
}

/// A batch with one span that fits and one that does not is refused as a whole.
pub fn a_batch_that_does_not_fit_changes_nothing(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session_of_blocks(3)?;
    let capabilities = run.capabilities().clone();
    let block = capabilities.block_tokens;
    if capabilities.sequences_max < 3 || capabilities.context_tokens_max < capabilities.kv_tokens_max {
        return Ok(Outcome::Skipped(
            "three sequences, and contexts as long as the KV cache, are required".into(),
        ));
    }
    // One block is left, but two sequences need one each.
    let tokens = fixture.tokens(capabilities.kv_tokens_max - block, 1)?;
    run.feed(0, 0, &tokens, 0)?;
    let one = fixture.tokens(block + 1, 2)?;
    let parts: [Part<'_>; 2] =
        [(1, 0, &one[..block.min(capabilities.batch_tokens_max - 1)], 1), (2, 0, &one[..1], 1)];
    let input = format!("one block of {block} is free, and two empty sequences start in one batch");
    full(&mut run, &parts, (2, 1), &input)?;
    run.release(1);
    run.release(2);
    for part in parts {
        let rows = check(clause::AFTER_ERROR, &input).works(run.try_pass(&[part]))?;
        let expected = plain(fixture, part.2)?.split_off(part.2.len() - 1);
        check(clause::AFTER_ERROR, &input).same(&rows, &expected, fixture.tolerance)?;
        run.release(part.0);
    }
    Ok(Outcome::Passed)
}

/// One sequence has room in its last block, another needs more blocks than are free: a batch of both changes
/// neither, both continue from their old state, and a release makes room for the other.
pub fn kv_runs_out_and_comes_back(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session_of_blocks(3)?;
    let capabilities = run.capabilities().clone();
    let (block, kv) = (capabilities.block_tokens, capabilities.kv_tokens_max);
    // Whole blocks of the second sequence; the first leaves the last four tokens of the rest unused.
    let second = 16usize.div_ceil(block) * block;
    let more = block.min(4);
    if capabilities.sequences_max < 3 || capabilities.context_tokens_max < kv || kv < 2 * second + more {
        return Ok(Outcome::Skipped("three sequences, long contexts and several blocks are required".into()));
    }
    let first = kv - second - more;
    let (a, b) = (fixture.tokens(first + more, 1)?, fixture.tokens(second + 1, 2)?);
    run.feed(0, 0, &a[..first], 0)?;
    run.feed(1, 0, &b[..second], 0)?;
    let blocks = |tokens: usize| tokens.div_ceil(block);
    let free = kv / block - blocks(first) - blocks(second);
    let needed = blocks(first + more) - blocks(first) + 1;
    let input = format!("{kv} tokens of KV in blocks of {block}; {first} and {second} tokens are held");
    let both: [Part<'_>; 2] = [(0, first, &a[first..], 1), (1, second, &b[second..], 1)];
    full(&mut run, &both, (needed, free), &format!("{input}; both get more in one batch"))?;
    let input = format!("{input}, after a batch that did not fit");
    let (whole_a, whole_b) = (plain(fixture, &a)?, plain(fixture, &b)?);
    let rows = check(clause::KV_FULL, &input).works(run.try_pass(&both[..1]))?;
    check(clause::ROW_ALONE, &input).same(&rows, &whole_a[first + more - 1..].to_vec(), fixture.tolerance)?;
    run.release(0);
    let input = format!("{input}; then the first is released, and the rest of the KV filled");
    let rows = check(clause::MEMORY, &input).works(run.try_pass(&both[1..]))?;
    check(clause::ROW_ALONE, &input).same(&rows, &whole_b[second..].to_vec(), fixture.tolerance)?;
    let rest = fixture.tokens((kv / block - blocks(second + 1)) * block, 3)?;
    check(clause::MEMORY, &input).works(feed(&mut run, 2, 0, &rest))?;
    Ok(Outcome::Passed)
}

/// Forks share whole blocks, and the last writer into a shared block needs no block of its own.
pub fn shared_blocks_count_once(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session_of_blocks(4)?;
    let capabilities = run.capabilities().clone();
    let (block, sequences) = (capabilities.block_tokens, capabilities.sequences_max.min(4));
    let blocks = capabilities.kv_tokens_max / block;
    if !capabilities.fork || sequences < 3 || capabilities.context_tokens_max < capabilities.kv_tokens_max {
        return Ok(Outcome::Skipped("forks, three sequences and long contexts are required".into()));
    }
    // All sequences share every block but one per further sequence.
    let shared = (blocks - (sequences - 1)) * block - block / 2;
    let tokens = fixture.tokens(shared, 1)?;
    run.feed(0, 0, &tokens, 0)?;
    let input = format!("{blocks} blocks of {block}; {sequences} sequences share {shared} tokens");
    for to in 1..sequences {
        check(clause::FORK, &input).works(run.fork(0, to as u32, shared))?;
    }
    // With partly filled blocks, all writers but the last take
    // a copy. With blocks of one token, each takes its own.
    let writers = if shared % block == 0 { sequences - 1 } else { sequences };
    let next = fixture.tokens(writers, 2)?;
    let parts: Vec<Part<'_>> = (0..writers).map(|i| (i as u32, shared, &next[i..=i], 1)).collect();
    let input = format!("{input}; {writers} of them get one more token in one batch");
    let rows = check(clause::BLOCKS, &input).works(run.try_pass(&parts))?;
    for (i, row) in rows.into_iter().enumerate() {
        let expected = last_row(fixture, &[&tokens[..], &next[i..=i]].concat())?;
        check(clause::ROW_ALONE, &input).same(&vec![row], &expected, fixture.tolerance)?;
    }
    Ok(Outcome::Passed)
}

pub(super) fn last_row(fixture: &Fixture, tokens: &[u32]) -> Result<Vec<Vec<f32>>, Failure> {
    fixture.session()?.feed(0, 0, tokens, 1)
}
