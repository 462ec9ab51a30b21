//! Memory after a thousand sequences.

use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::random::Random;
use crate::run::Run;

/// Rounds, and sequences per round: 1,200 sequences in total.
const ROUNDS: usize = 6;
const SEQUENCES: usize = 200;

/// Maximum growth of the process per round in bytes: allocators return pages at their own discretion.
const GROWTH_MAX: i64 = 192 << 10;

/// After 1,200 sequences were fed, forked, cut and released, all KV can be filled
/// again, and the process has not grown (checked where the system reports memory).
pub fn memory_returns_after_a_thousand_sequences(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session_of_blocks(6)?;
    let mut growth = Vec::new();
    // In the first round buffers grow to their final size.
    for round in 0..ROUNDS {
        let before = resident_bytes();
        come_and_go(fixture, &mut run, round as u64)?;
        if let (Some(before), Some(after)) = (before, resident_bytes()) {
            growth.push(after - before);
        }
    }
    let input = format!("{} sequences that came and went", ROUNDS * SEQUENCES);
    full_again(fixture, &mut run, &input)?;
    // Other tests of the process also allocate; a leak here shows in every round.
    if let Some(least) = growth.iter().skip(1).min() {
        check(clause::MEMORY, format!("{input}, {SEQUENCES} in a round")).holds(
            *least < GROWTH_MAX,
            &format!("a round that adds less than {GROWTH_MAX} bytes to the process"),
            &growth,
        )?;
    }
    Ok(Outcome::Passed)
}

/// Runs `SEQUENCES` sequences of random lengths: some forked, some cut, all released.
fn come_and_go(fixture: &Fixture, run: &mut Run, seed: u64) -> Result<(), Failure> {
    let capabilities = run.capabilities().clone();
    let (block, sequences) = (capabilities.block_tokens, capabilities.sequences_max.min(4) as u32);
    // A fork may take a block for its last tokens.
    let longest = fixture.fitting(run, block + 3).min(40).min(capabilities.kv_tokens_max / 6);
    let tokens = fixture.tokens(longest + 2, seed)?;
    let mut random = Random::new(seed);
    for i in 0..SEQUENCES as u32 {
        let seq = i % sequences;
        run.release(seq);
        let len = 1 + random.below(longest);
        run.feed(seq, 0, &tokens[..len], 0)?;
        let other = (seq + 1) % sequences;
        if capabilities.fork && i % 3 == 0 && other != seq {
            run.release(other);
            let check = check(clause::MEMORY, format!("fork {len} tokens of sequence {i}"));
            check.works(run.fork(seq, other, len))?;
            run.pass(&[(other, len, &tokens[len..=len], 1)])?;
        }
        if capabilities.truncate && i % 4 == 0 {
            let check = check(clause::MEMORY, format!("cut {len} tokens of sequence {i} to {}", len / 2));
            check.works(run.truncate(seq, len / 2))?;
        }
        if capabilities.save && i % 10 == 0 && other != seq {
            run.release(other);
            let check = check(clause::MEMORY, format!("save and restore sequence {i}"));
            let saved = check.works(run.save(seq))?;
            check.works(run.restore(other, &saved))?;
        }
    }
    (0..sequences).for_each(|seq| run.release(seq));
    Ok(())
}

/// Fills every block of the session and compares the last row.
fn full_again(fixture: &Fixture, run: &mut Run, input: &str) -> Result<(), Failure> {
    let Some(lengths) = super::capacity::fill(run) else { return Ok(()) };
    for (seq, len) in lengths.into_iter().enumerate() {
        let tokens = fixture.tokens(len, 70 + seq as u64)?;
        let check = check(clause::MEMORY, format!("{input}; then sequence {seq} of those that fill all KV"));
        let mut rows = Vec::new();
        let step = run.capabilities().batch_tokens_max;
        for (i, chunk) in tokens.chunks(step).enumerate() {
            rows = check.works(run.try_pass(&[(seq as u32, i * step, chunk, 1)]))?;
        }
        let expected = plain(fixture, &tokens)?.split_off(len - 1);
        check.same(&rows, &expected, fixture.tolerance)?;
    }
    Ok(())
}

/// Resident bytes of the process; `None` without `/proc`.
fn resident_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_seen_where_the_system_tells() {
        if let Some(before) = super::resident_bytes() {
            let block = std::hint::black_box(vec![1u8; 32 << 20]);
            assert!(super::resident_bytes().unwrap() > before + (16 << 20), "{} bytes", block.len());
        }
    }
}
