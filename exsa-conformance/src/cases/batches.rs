//! Ragged batches and chunked prefill against plain runs.

use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::logits::Rows;
use crate::random::Random;
use crate::run::Part;
use std::collections::BTreeSet;

/// A prompt split in two at every position, with the rest computed in one pass.
pub fn chunked_prefill_at_every_split(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    // A little over two blocks, so that splits fall before, on and after block boundaries.
    let blocks = 2 * run.capabilities().block_tokens + 3;
    let n = fixture.fitting(&run, blocks.clamp(20, 80));
    let tokens = fixture.tokens(n, 1)?;
    let whole = plain(fixture, &tokens)?;
    for split in 1..n {
        run.pass(&[(0, 0, &tokens[..split], 0)])?;
        let rows = run.pass(&[(0, split, &tokens[split..], n - split)])?;
        let check = check(clause::ROW_ALONE, format!("{n} tokens as {split} and then {}", n - split));
        check.same(&rows, &whole[split..].to_vec(), fixture.tolerance)?;
        run.release(0);
    }
    Ok(Outcome::Passed)
}

/// A prompt in chunks of one size: single tokens, odd numbers, just under, at and over a block.
pub fn prefill_in_pieces(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let block = run.capabilities().block_tokens;
    // Longer than the attention windows of small models.
    let n = fixture.fitting(&run, 90);
    let tokens = fixture.tokens(n, 2)?;
    let whole = plain(fixture, &tokens)?;
    let sizes = BTreeSet::from([1, 2, 7, 33, 64, block.saturating_sub(1).max(1), block, block + 1]);
    for size in sizes {
        let mut rows = Rows::new();
        for (i, piece) in tokens.chunks(size).enumerate() {
            rows.extend(run.feed(0, i * size, piece, piece.len())?);
        }
        let check = check(clause::ROW_ALONE, format!("{n} tokens in pieces of {size}"));
        check.same(&rows, &whole, fixture.row_tolerance())?;
        run.release(0);
    }
    Ok(Outcome::Passed)
}

/// Several sequences that alternate between prefill, decode
/// and absence in ragged batches, against each sequence alone.
pub fn ragged_batches(fixture: &Fixture) -> CaseResult {
    ragged(fixture, fixture.tolerance, |_, _| ())
}

/// Like `ragged_batches`, with a different order of spans in each batch.
pub fn spans_in_any_order(fixture: &Fixture) -> CaseResult {
    ragged(fixture, fixture.tolerance, |spans, random| {
        for i in (1..spans.len()).rev() {
            spans.swap(i, random.below(i + 1));
        }
    })
}

/// Like `ragged_batches`, bit for bit, if the fixture guarantees it.
pub fn rows_do_not_depend_on_the_batch_in_any_bit(fixture: &Fixture) -> CaseResult {
    if !fixture.bitwise {
        return Ok(Outcome::Skipped("the fixture does not guarantee bitwise equal rows".into()));
    }
    ragged(fixture, 0.0, |_, _| ())
}

fn ragged(
    fixture: &Fixture,
    tolerance: f32,
    mut order: impl FnMut(&mut Vec<Part<'_>>, &mut Random),
) -> CaseResult {
    let mut run = fixture.session()?;
    let sequences = run.capabilities().sequences_max.min(5);
    let room = fixture.fitting(&run, 76).min(run.capabilities().kv_tokens_max / sequences.max(1));
    let all: Vec<_> = (0..sequences)
        .map(|i| fixture.tokens((room / 2 + i * 9).min(room).max(1), 20 + i as u64))
        .collect::<Result<_, _>>()?;
    let mut alone = Vec::new();
    for tokens in &all {
        alone.push(plain(fixture, tokens)?);
    }
    let (mut rows, mut at) = (vec![Rows::new(); sequences], vec![0; sequences]);
    let mut random = Random::new(7);
    let mut step = 0;
    while at.iter().zip(&all).any(|(at, tokens)| *at < tokens.len()) {
        let mut room = run.capabilities().batch_tokens_max;
        let mut parts: Vec<Part<'_>> = Vec::new();
        for (i, tokens) in all.iter().enumerate() {
            // Absent, a decode, a chunk.
            let len = match (step + i) % 3 {
                0 => 0,
                1 => 1,
                _ => 2 + random.below(20),
            };
            let len = len.min(tokens.len() - at[i]).min(room);
            room -= len;
            if len > 0 {
                parts.push((i as u32, at[i], &tokens[at[i]..at[i] + len], len));
                at[i] += len;
            }
        }
        step += 1;
        order(&mut parts, &mut random);
        let mut given = run.pass(&parts)?.into_iter();
        for (seq, _, tokens, _) in &parts {
            rows[*seq as usize].extend(given.by_ref().take(tokens.len()));
        }
    }
    for (i, (rows, alone)) in rows.iter().zip(&alone).enumerate() {
        let input =
            format!("{sequences} sequences in {step} ragged batches; sequence {i} against itself alone");
        check(clause::ROW_ALONE, input).same(rows, alone, tolerance)?;
    }
    Ok(Outcome::Passed)
}

/// All sequences of the session decode in one batch.
pub fn all_sequences_at_once(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let capabilities = run.capabilities().clone();
    let blocks = capabilities.kv_tokens_max / capabilities.block_tokens.max(1);
    let sequences = capabilities.sequences_max.min(blocks).min(capabilities.batch_tokens_max).min(24);
    let prompts: Vec<_> =
        (0..sequences).map(|i| fixture.tokens(1 + i % 3, 40 + i as u64)).collect::<Result<_, _>>()?;
    for (seq, prompt) in prompts.iter().enumerate() {
        run.feed(seq as u32, 0, prompt, 0)?;
    }
    let next = fixture.tokens(sequences, 9)?;
    let parts: Vec<Part<'_>> =
        (0..sequences).map(|i| (i as u32, prompts[i].len(), &next[i..=i], 1)).collect();
    let rows = run.pass(&parts)?;
    for (i, row) in rows.into_iter().enumerate() {
        let tokens = [&prompts[i][..], &next[i..=i]].concat();
        let expected = plain(fixture, &tokens)?.split_off(tokens.len() - 1);
        let input = format!("{sequences} sequences decode in one batch; sequence {i} against itself alone");
        check(clause::ROW_ALONE, input).same(&vec![row], &expected, fixture.tolerance)?;
    }
    Ok(Outcome::Passed)
}

/// A batch of exactly the limit succeeds, in one span and in several.
pub fn largest_batch(fixture: &Fixture) -> CaseResult {
    let options = fixture.options().batch_tokens(48);
    let mut run = fixture.session_with(&options)?;
    let n = fixture.fitting(&run, run.capabilities().batch_tokens_max);
    let tokens = fixture.tokens(n, 6)?;
    let whole = in_pieces(fixture, &tokens, 1)?;
    let rows = run.pass(&[(0, 0, &tokens, n)])?;
    check(clause::ROW_ALONE, format!("{n} tokens in one span")).same(&rows, &whole, fixture.tolerance)?;
    if run.capabilities().sequences_max > 1 && n > 1 {
        run.release(0);
        let half = n / 2;
        let rows = run.pass(&[(0, 0, &tokens[..half], half), (1, 0, &tokens[..n - half], n - half)])?;
        let expected = [&whole[..half], &whole[..n - half]].concat();
        check(clause::ROW_ALONE, format!("spans of {half} and {} tokens", n - half)).same(
            &rows,
            &expected,
            fixture.tolerance,
        )?;
    }
    Ok(Outcome::Passed)
}

fn in_pieces(fixture: &Fixture, tokens: &[u32], size: usize) -> Result<Rows, Failure> {
    let mut run = fixture.session()?;
    let mut rows = Rows::new();
    for (i, piece) in tokens.chunks(size).enumerate() {
        rows.extend(run.feed(0, i * size, piece, piece.len())?);
    }
    Ok(rows)
}
