//! Batches that are refused without a change.

use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Clause, Failure, Outcome};
use crate::fixture::Fixture;
use crate::run::{Part, Run, describe};
use exsa_core::SeqId;
use exsa_core::backend::SessionOptions;
use exsa_core::error::StepError;

/// A session with sequence 0 of six tokens and a bystander, sequence 1, of five.
struct Scene<'a> {
    fixture: &'a Fixture,
    run: Run,
    held: [Vec<u32>; 2],
}

impl<'a> Scene<'a> {
    fn new(fixture: &'a Fixture, options: &SessionOptions) -> Result<Option<Self>, Failure> {
        let mut run = fixture.session_with(options)?;
        let limits = run.capabilities();
        if limits.sequences_max < 2 || limits.batch_tokens_max < 8 || limits.context_tokens_max < 12 {
            return Ok(None);
        }
        let held = [fixture.tokens(6, 1)?, fixture.tokens(5, 2)?];
        run.feed(0, 0, &held[0], 0)?;
        run.feed(1, 0, &held[1], 0)?;
        Ok(Some(Self { fixture, run, held }))
    }

    /// Requires a refusal of the batch. A bystander in the same
    /// batch and the sequences themselves must be unchanged.
    fn refuse(
        &mut self,
        clause: Clause,
        parts: &[Part<'_>],
        words: &str,
        wanted: impl Fn(&StepError) -> bool,
    ) -> Result<(), Failure> {
        let bystander = self.fixture.tokens(1, 3)?;
        let good: Part<'_> = (1, self.held[1].len(), &bystander, 1);
        // The refusal depends neither on the place in the batch, nor on other spans, nor on retries.
        let mut batches = vec![parts.to_vec(), parts.to_vec()];
        if parts.iter().all(|(seq, ..)| *seq != 1) {
            batches.push([&[good], parts].concat());
            batches.push([parts, &[good]].concat());
        }
        for batch in &batches {
            let result = self.run.try_pass(batch);
            check(clause, describe(batch)).refused(result, words, &wanted)?;
        }
        self.intact(clause, &describe(parts))
    }

    /// Checks that both sequences continue from their old state.
    fn intact(&mut self, clause: Clause, input: &str) -> Result<(), Failure> {
        for (seq, held) in self.held.iter().enumerate() {
            let next = self.fixture.tokens(2, 50)?;
            let check = check(clause, format!("{input}; then sequence {seq} goes on at {}", held.len()));
            let rows = check.works(self.run.try_pass(&[(seq as u32, held.len(), &next, 2)]))?;
            let expected = plain(self.fixture, &[&held[..], &next].concat())?.split_off(held.len());
            check.same(&rows, &expected, self.fixture.tolerance)?;
            if !self.run.roll_back(seq as u32, held.len()) {
                self.run.feed(seq as u32, 0, held, 0)?;
            }
        }
        Ok(())
    }
}

fn small(fixture: &Fixture) -> SessionOptions {
    fixture.options().batch_tokens(32).context_tokens(48)
}

const SKIPPED: &str =
    "the session is too small: 2 sequences, 8 tokens in a batch and 12 in a context are required";

/// Positions before and after the end of a sequence.
pub fn wrong_positions(fixture: &Fixture) -> CaseResult {
    let Some(mut scene) = Scene::new(fixture, &small(fixture))? else {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    };
    let tokens = fixture.tokens(2, 4)?;
    for position in [0, 5, 7, 48, 1 << 20, usize::MAX - 1, usize::MAX] {
        let words = format!("StepError::Position {{ seq: 0, position: {position}, held: 6 }}");
        scene.refuse(clause::POSITION, &[(0, position, &tokens, 1)], &words, |error| {
            matches!(error, StepError::Position { seq: SeqId(0), position: p, held: 6 } if *p == position)
        })?;
    }
    // An empty sequence.
    if scene.run.capabilities().sequences_max > 2 {
        let words = "StepError::Position { seq: 2, position: 1, held: 0 }";
        scene.refuse(clause::POSITION, &[(2, 1, &tokens, 1)], words, |error| {
            matches!(error, StepError::Position { seq: SeqId(2), position: 1, held: 0 })
        })?;
    }
    Ok(Outcome::Passed)
}

/// Sequence ids that do not exist in the session, and two spans of one sequence.
pub fn wrong_sequences(fixture: &Fixture) -> CaseResult {
    let Some(mut scene) = Scene::new(fixture, &small(fixture))? else {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    };
    let tokens = fixture.tokens(2, 4)?;
    let beyond = scene.run.capabilities().sequences_max as u32;
    for seq in [beyond, beyond + 1, 1 << 31, u32::MAX] {
        scene.refuse(
            clause::SEQUENCE_IDS,
            &[(seq, 0, &tokens, 1)],
            &format!("StepError::Sequence of sequence {seq}"),
            |error| matches!(error, StepError::Sequence { seq: SeqId(s), .. } if *s == seq),
        )?;
    }
    for second in [6, 8] {
        scene.refuse(
            clause::SEQUENCE_IDS,
            &[(0, 6, &tokens, 1), (0, second, &tokens, 1)],
            "StepError::Sequence or Position of sequence 0",
            |error| {
                error.seq() == Some(SeqId(0))
                    && matches!(error, StepError::Sequence { .. } | StepError::Position { .. })
            },
        )?;
    }
    Ok(Outcome::Passed)
}

/// Token ids outside the vocabulary; the last id inside works.
pub fn wrong_tokens(fixture: &Fixture) -> CaseResult {
    let Some(mut scene) = Scene::new(fixture, &small(fixture))? else {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    };
    let n_vocab = fixture.model()?.info().n_vocab;
    let good = fixture.tokens(2, 4)?;
    for token in [n_vocab as u32, n_vocab as u32 + 1, i32::MAX as u32, 1 << 31, u32::MAX] {
        let tokens = [good[0], token, good[1]];
        let words = format!("StepError::InvalidToken {{ seq: 0, token: {token}, n_vocab: {n_vocab} }}");
        scene.refuse(clause::VOCABULARY, &[(0, 6, &tokens, 1)], &words, |error| {
            matches!(error, StepError::InvalidToken { seq: SeqId(0), token: t, n_vocab: n }
                if *t == token && *n == n_vocab)
        })?;
    }
    let last = [n_vocab as u32 - 1];
    check(clause::VOCABULARY, "the last token of the vocabulary")
        .works(scene.run.try_pass(&[(0, 6, &last, 1)]))?;
    Ok(Outcome::Passed)
}

/// One token over the batch limit, in one span and in two.
pub fn too_large_batches(fixture: &Fixture) -> CaseResult {
    let options = fixture.options().batch_tokens(24);
    let Some(mut scene) = Scene::new(fixture, &options)? else {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    };
    let limit = scene.run.capabilities().batch_tokens_max;
    check(clause::OPTIONS, "a session with batch_tokens_max 24").holds(
        limit <= 24,
        "a limit of 24 at most",
        limit,
    )?;
    for excess in [1, 2, 3 * limit] {
        let tokens = fixture.tokens(limit + excess, 4)?;
        let words =
            format!("StepError::BatchTooLarge {{ limit: {limit} }}, of at least {} tokens", tokens.len());
        // A batch with a bystander has one token more.
        let wanted = |error: &StepError| {
            matches!(error, StepError::BatchTooLarge { tokens: n, limit: l }
                if *l == limit && (tokens.len()..=tokens.len() + 1).contains(n))
        };
        scene.refuse(clause::BATCH_LIMIT, &[(0, 6, &tokens, 1)], &words, wanted)?;
        let (left, right) = tokens.split_at(tokens.len() / 2);
        scene.refuse(clause::BATCH_LIMIT, &[(0, 6, left, 1), (1, 5, right, 1)], &words, wanted)?;
    }
    Ok(Outcome::Passed)
}

/// A sequence grows to exactly the context length and no further.
pub fn context_reached(fixture: &Fixture) -> CaseResult {
    let options = fixture.options().context_tokens(40).batch_tokens(64);
    let mut run = fixture.session_with(&options)?;
    let context = run.capabilities().context_tokens_max;
    let n_ctx = fixture.model()?.info().n_ctx;
    check(clause::CONTEXT, format!("a session with a context of 40 of a model with {n_ctx}")).holds(
        context <= n_ctx.min(40),
        "no more than either",
        context,
    )?;
    let tokens = fixture.tokens(context + 2, 1)?;
    let expected = plain(fixture, &tokens[..context])?.split_off(context - 1);
    run.feed(0, 0, &tokens[..context - 1], 0)?;
    let input = format!("two tokens at position {} of a context of {context}", context - 1);
    let refused = |run: &mut Run, position: usize, len: usize, input: String| {
        let result = run.try_pass(&[(0, position, &tokens[position..position + len], 1)]);
        check(clause::CONTEXT, input).refused(result, "StepError::Sequence of sequence 0", |error| {
            matches!(error, StepError::Sequence { seq: SeqId(0), .. })
        })
    };
    refused(&mut run, context - 1, 2, input)?;
    let last = run.pass(&[(0, context - 1, &tokens[context - 1..context], 1)])?;
    check(clause::CONTEXT, "the last token that fits").same(&last, &expected, fixture.tolerance)?;
    refused(&mut run, context, 1, format!("one token after {context} of a context of {context}"))?;
    Ok(Outcome::Passed)
}
