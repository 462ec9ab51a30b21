//! Embeddings of texts.

use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::logits::{Rows, difference};
use crate::run::{Part, Run, describe};
use exsa_core::SeqId;
use exsa_core::backend::Pooling;
use exsa_core::batch::{Batch, Span};
use exsa_core::error::StepError;

/// Requested poolings; the first requests none.
const POOLINGS: [Option<Pooling>; 4] = [None, Some(Pooling::Mean), Some(Pooling::First), Some(Pooling::Last)];

/// Sessions that embed, one per pooling. A session without the requested pooling refuses, or reports its own.
fn embedding(fixture: &Fixture) -> Result<Vec<Run>, Failure> {
    let mut runs: Vec<Run> = Vec::new();
    for pooling in POOLINGS {
        let options = fixture.options().pooling(pooling);
        let Ok(session) = fixture.model()?.session(&options) else { continue };
        let run = Run::new(session, fixture.model()?.info().n_vocab);
        let given = run.capabilities().embed;
        let check = check(clause::EMBED, format!("a session with pooling {pooling:?}"));
        check.holds(
            given.is_none() || pooling.is_none() || given == pooling,
            "the requested pooling, or none",
            given,
        )?;
        if given.is_some() && runs.iter().all(|run| run.capabilities().embed != given) {
            runs.push(run);
        }
    }
    Ok(runs)
}

const SKIPPED: &str = "the session declares that it does not support embeddings";

fn try_embed(run: &mut Run, parts: &[Part<'_>]) -> Result<Rows, StepError> {
    let mut batch = Batch::new();
    for (seq, position, tokens, rows) in parts {
        batch.push(Span::tokens(SeqId(*seq), *position, tokens).rows(*rows));
    }
    let vectors = run.session.embed(&batch)?;
    Ok((0..vectors.len()).filter_map(|i| vectors.vector(i)).map(<[f32]>::to_vec).collect())
}

/// Runs a batch, which must yield one vector per span, of equal width and with finite values.
fn embed(run: &mut Run, parts: &[Part<'_>]) -> Result<Rows, Failure> {
    let check = check(clause::EMBED, format!("{:?}, {}", run.capabilities().embed, describe(parts)));
    let vectors = check.works(try_embed(run, parts))?;
    check.equal(vectors.len(), parts.len())?;
    let width = vectors.first().map_or(0, Vec::len);
    check.holds(
        width > 0 && vectors.iter().all(|vector| vector.len() == width),
        "vectors of one width",
        width,
    )?;
    check.holds(vectors.iter().flatten().all(|x| x.is_finite()), "finite numbers", &vectors)?;
    Ok(vectors)
}

/// The vector of a text does not depend on the rest of the batch, its place in it or earlier
/// passes; different texts have different vectors. Afterwards the sequences are empty.
pub fn embeddings_of_texts(fixture: &Fixture) -> CaseResult {
    let runs = embedding(fixture)?;
    if runs.is_empty() {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    for mut run in runs {
        let count = run.capabilities().sequences_max.min(4);
        let room = fixture.fitting(&run, 40) / count.max(1);
        let texts: Vec<_> = (0..count)
            .map(|i| fixture.tokens((room / 2 + 2 * i).clamp(1, room.max(1)), 80 + i as u64))
            .collect::<Result<_, _>>()?;
        let mut alone = Rows::new();
        for text in &texts {
            alone.extend(embed(&mut run, &[(0, 0, text, 0)])?);
        }
        let pooling = run.capabilities().embed;
        for i in 1..count {
            let difference = difference(&alone[i], &alone[0]);
            check(clause::EMBED, format!("{pooling:?}, two texts")).holds(
                difference > 5.0 * fixture.tolerance,
                "vectors that differ",
                difference,
            )?;
        }
        let forwards: Vec<Part<'_>> = (0..count).map(|i| (i as u32, 0, texts[i].as_slice(), i % 2)).collect();
        let backwards: Vec<Part<'_>> = forwards.iter().rev().copied().collect();
        for (parts, order) in
            [(forwards, (0..count).collect::<Vec<_>>()), (backwards, (0..count).rev().collect())]
        {
            let expected: Rows = order.into_iter().map(|i| alone[i].clone()).collect();
            let found = embed(&mut run, &parts)?;
            let input = format!("{pooling:?}, {} against each alone", describe(&parts));
            check(clause::EMBED, input).same(&found, &expected, fixture.tolerance)?;
        }
        check(clause::EMBED, format!("{pooling:?}, a batch without texts")).equal(
            try_embed(&mut run, &[]).map(|vectors| vectors.len()).map_err(|error| error.to_string()),
            Ok(0),
        )?;
        // Embedding leaves nothing behind, and a sequence that holds tokens continues.
        if count > 1 {
            let tokens = fixture.tokens(5, 1)?;
            run.feed(1, 0, &tokens[..4], 0)?;
            embed(&mut run, &[(0, 0, &texts[0], 0)])?;
            let rows = run.pass(&[(0, 0, &tokens, 1), (1, 4, &tokens[4..], 1)])?;
            let expected = super::capacity::last_row(fixture, &tokens)?;
            let expected = [expected.clone(), expected].concat();
            check(clause::EMBED, format!("{pooling:?}, passes after texts were embedded")).same(
                &rows,
                &expected,
                fixture.tolerance,
            )?;
        }
    }
    Ok(Outcome::Passed)
}

/// The limits and refusals of `forward` apply to `embed`; a session without embeddings refuses it.
pub fn embeds_that_are_refused(fixture: &Fixture) -> CaseResult {
    let mut usual = fixture.session()?;
    let tokens = fixture.tokens(4, 1)?;
    if usual.capabilities().embed.is_none() {
        let result = try_embed(&mut usual, &[(0, 0, &tokens, 0)]);
        check(clause::FLAGS, "embed, where its flag is not set").refused(
            result,
            "StepError::Unsupported(\"embed\")",
            |error| matches!(error, StepError::Unsupported("embed")),
        )?;
    }
    let runs = embedding(fixture)?;
    if runs.is_empty() {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    for mut run in runs {
        let capabilities = run.capabilities().clone();
        let (beyond, n_vocab) = (capabilities.sequences_max as u32, fixture.model()?.info().n_vocab);
        let outside = [tokens[0], n_vocab as u32];
        let long = fixture.tokens(capabilities.batch_tokens_max + 1, 2)?;
        let mut refuse = |parts: &[Part<'_>], words: &str, wanted: fn(&StepError) -> bool| {
            let result = try_embed(&mut run, parts);
            let input = format!("{:?}, {}", capabilities.embed, describe(parts));
            check(clause::EMBED, input).refused(result, words, wanted)
        };
        refuse(&[(0, 1, &tokens, 0)], "StepError::Position", |e| matches!(e, StepError::Position { .. }))?;
        refuse(&[(beyond, 0, &tokens, 0)], "StepError::Sequence", |e| {
            matches!(e, StepError::Sequence { .. })
        })?;
        refuse(&[(0, 0, &outside, 0)], "StepError::InvalidToken", |e| {
            matches!(e, StepError::InvalidToken { .. })
        })?;
        refuse(&[(0, 0, &long, 0)], "StepError::BatchTooLarge", |e| {
            matches!(e, StepError::BatchTooLarge { .. })
        })?;
        let rows = run.pass(&[(0, 0, &tokens, 1)])?;
        let expected = super::capacity::last_row(fixture, &tokens)?;
        check(clause::EMBED, "a pass after embeds that were refused").same(
            &rows,
            &expected,
            fixture.tolerance,
        )?;
        let taken = try_embed(&mut run, &[(0, 0, &tokens, 0)]);
        check(clause::EMBED, "a text for a sequence that holds tokens").refused(
            taken,
            "StepError::Position",
            |e| matches!(e, StepError::Position { .. }),
        )?;
    }
    Ok(Outcome::Passed)
}
