//! Adapters of individual spans.

use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::logits::{Rows, copy};
use crate::run::Run;
use exsa_core::backend::{AdapterLimits, Model};
use exsa_core::batch::{Batch, Span, SpanAdapter};
use exsa_core::error::StepError;
use exsa_core::{AdapterId, SeqId, TokenId};
use std::sync::Arc;

/// Loads the fixture's adapters, of which there are two.
fn load(fixture: &Fixture, model: &Arc<dyn Model>) -> Result<Vec<AdapterId>, Failure> {
    let load = |source| {
        let loaded = model.load_adapter(source, &AdapterLimits::new());
        check(clause::ADAPTERS, "load an adapter of the fixture").works(loaded).map(|info| info.id)
    };
    fixture.adapters.iter().map(load).collect()
}

/// A span of a batch: sequence, position, tokens, adapters. All of its rows are requested.
type Part<'a> = (u32, usize, &'a [TokenId], &'a [SpanAdapter]);

fn try_pass(run: &mut Run, parts: &[Part<'_>]) -> Result<Rows, StepError> {
    let mut batch = Batch::new();
    for (seq, position, tokens, adapters) in parts {
        let span = Span::tokens(SeqId(*seq), *position, tokens).rows(tokens.len());
        batch.push(span.adapters(adapters));
    }
    run.session.forward(&batch).map(copy)
}

/// Spans with different adapters in one batch have the same rows as alone, in one or several pieces.
pub fn adapters_of_spans(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let (span_max, sets_max) =
        (run.capabilities().span_adapters_max, run.capabilities().batch_adapter_sets_max);
    if span_max == 0 || fixture.adapters.len() < 2 {
        return Ok(Outcome::Skipped("the session does not support adapters, or the fixture has none".into()));
    }
    let model = fixture.model()?;
    let ids = load(fixture, &model)?;
    let on = |i: usize, scale| SpanAdapter { id: ids[i], scale };
    let mut sets = vec![vec![on(0, 1.0)], vec![], vec![on(1, 1.0)], vec![on(0, 2.0)]];
    if span_max > 1 {
        sets.push(vec![on(0, 1.0), on(1, 1.0)]);
    }
    sets.truncate(run.capabilities().sequences_max);
    let n = fixture.fitting(&run, 60) / sets.len();
    let tokens = fixture.tokens(n, 1)?;
    let mut alone = Vec::new();
    for set in &sets {
        let check = check(clause::ADAPTERS, format!("{n} tokens with the adapters {set:?}, alone"));
        alone.push(check.works(try_pass(&mut fixture.session()?, &[(0, 0, &tokens, set)]))?);
    }
    for (i, rows) in alone.iter().enumerate() {
        for (j, other) in alone[..i].iter().enumerate() {
            check(clause::ADAPTERS, format!("rows with {:?}, and with {:?}", sets[i], sets[j])).holds(
                rows != other,
                "different rows",
                "the same",
            )?;
        }
    }
    let mut found = vec![Rows::new(); sets.len()];
    let cut = n / 3;
    for (start, end) in [(0, cut), (cut, n - 1), (n - 1, n)] {
        let all: Vec<usize> = (0..sets.len()).collect();
        // As many sets per batch as the session allows.
        for some in all.chunks(sets_max.clamp(1, sets.len())) {
            let parts: Vec<Part<'_>> =
                some.iter().map(|i| (*i as u32, start, &tokens[start..end], &sets[*i][..])).collect();
            let input = format!("tokens {start} to {end}, with the sets {some:?} of {sets:?} in one batch");
            let rows = check(clause::ADAPTERS, input).works(try_pass(&mut run, &parts))?;
            for (i, rows) in some.iter().zip(rows.chunks(end - start)) {
                found[*i].extend_from_slice(rows);
            }
        }
    }
    for (i, (found, alone)) in found.iter().zip(&alone).enumerate() {
        let input = format!("rows with {:?} beside other sets, in three pieces", sets[i]);
        check(clause::ADAPTERS, input).same(found, alone, fixture.row_tolerance())?;
    }
    ids.iter().for_each(|id| model.unload_adapter(*id));
    Ok(Outcome::Passed)
}

/// Unknown adapters and too many adapters are refused, with an error for their sequence.
pub fn adapters_that_are_refused(fixture: &Fixture) -> CaseResult {
    let mut run = fixture.session()?;
    let span_max = run.capabilities().span_adapters_max;
    let model = fixture.model()?;
    let ids = if span_max > 0 { load(fixture, &model)? } else { Vec::new() };
    let tokens = fixture.tokens(4, 1)?;
    let unknown = SpanAdapter { id: AdapterId(u32::MAX), scale: 1.0 };
    let mut lists = vec![vec![unknown]];
    if let Some(id) = ids.first() {
        lists.push(vec![SpanAdapter { id: *id, scale: 1.0 }; span_max + 1]);
        model.unload_adapter(*id);
        lists.push(vec![SpanAdapter { id: *id, scale: 1.0 }]);
    }
    for list in lists {
        let input = format!("a span with the adapters {list:?}, of which {span_max} are allowed");
        let check = check(clause::ADAPTERS_REFUSED, input);
        let refused = try_pass(&mut run, &[(1, 0, &tokens, &list)]);
        check.refused(refused, "StepError::Sequence of sequence 1", |error| {
            matches!(error, StepError::Sequence { seq: SeqId(1), .. })
        })?;
        run.roll_back(1, 0);
        let plain = check.works(try_pass(&mut run, &[(1, 0, &tokens, &[])]))?;
        let expected = check.works(try_pass(&mut fixture.session()?, &[(0, 0, &tokens, &[])]))?;
        check.same(&plain, &expected, fixture.row_tolerance())?;
        run.release(1);
    }
    ids.iter().for_each(|id| model.unload_adapter(*id));
    Ok(Outcome::Passed)
}
