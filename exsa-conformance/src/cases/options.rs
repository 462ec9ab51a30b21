//! Session options and the resulting capabilities.

use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use exsa_core::backend::SessionOptions;
use exsa_core::error::LoadError;

/// The limits in the capabilities follow the options, in whole blocks and within the model's limits.
pub fn capabilities_follow_the_options(fixture: &Fixture) -> CaseResult {
    let n_ctx = fixture.model()?.info().n_ctx;
    let usual = fixture.options();
    let all = [
        usual.clone(),
        usual.clone().sequences(1),
        usual.clone().sequences(3).context_tokens(33),
        usual.clone().sequences(2).idle_sequences(5),
        usual.clone().sequences(2).kv_tokens(77),
        usual.clone().sequences(2).context_tokens(1 << 40),
        usual.clone().batch_tokens(1),
        usual.clone().batch_tokens(17).kv_tokens(1),
        usual.context_tokens(usize::MAX / 2).kv_tokens(64),
    ];
    for options in all {
        let run = fixture.session_with(&options)?;
        let found = run.capabilities();
        let check = check(clause::CAPABILITIES, format!("a session with {options:?}"));
        let sequences = options.sequences_max..=options.sequences_max + options.sequences_idle_max;
        check.holds(sequences.contains(&found.sequences_max), &format!("{sequences:?} sequences"), found)?;
        check.holds(found.block_tokens > 0, "blocks of at least one token", found)?;
        let batch = 1..=options.batch_tokens_max;
        check.holds(
            batch.contains(&found.batch_tokens_max),
            &format!("a batch limit in {batch:?}"),
            found,
        )?;
        let whole = found.kv_tokens_max.is_multiple_of(found.block_tokens.max(1)) && found.kv_tokens_max > 0;
        check.holds(whole, "KV of whole blocks, at least one", found)?;
        let asked = options.kv_tokens_max.unwrap_or(0);
        check.holds(found.kv_tokens_max >= asked, &format!("at least {asked} tokens of KV"), found)?;
        let longest = options.context_tokens_max.unwrap_or(n_ctx).min(n_ctx);
        check.holds(found.context_tokens_max > 0, "a context", found)?;
        check.holds(
            found.context_tokens_max <= longest,
            &format!("a context of at most {longest}"),
            found,
        )?;
        // A requested context is granted if the KV size was left to the backend.
        if options.context_tokens_max.is_some() && options.kv_tokens_max.is_none() {
            check.equal(found.context_tokens_max, longest)?;
            check.holds(found.kv_tokens_max >= longest, "room for one such context", found)?;
        }
        let token = fixture.tokens(1, 1)?;
        let mut run = run;
        run.pass(&[(0, 0, &token, 1)])?;
    }
    Ok(Outcome::Passed)
}

/// Invalid options are refused with their names, and impossible sizes with their bytes, before any
/// allocation.
pub fn options_that_are_refused(fixture: &Fixture) -> CaseResult {
    let usual = fixture.options();
    let refuse =
        |options: SessionOptions, words: &str, wanted: fn(&LoadError) -> bool| -> Result<(), Failure> {
            let result = fixture.model()?.session(&options);
            check(clause::OPTIONS, format!("a session with {options:?}")).refused(result, words, wanted)
        };
    let option = |error: &LoadError| matches!(error, LoadError::Option { .. });
    let either = |error: &LoadError| matches!(error, LoadError::Option { .. } | LoadError::Memory { .. });
    let memory = |error: &LoadError| matches!(error, LoadError::Memory { needed, available, .. } if needed > available);
    for options in [
        usual.clone().sequences(0),
        usual.clone().batch_tokens(0),
        usual.clone().context_tokens(0),
        usual.clone().kv_tokens(0),
    ] {
        refuse(options, "LoadError::Option", option)?;
    }
    for options in [usual.clone().sequences(usize::MAX), usual.clone().batch_tokens(usize::MAX)] {
        refuse(options, "LoadError::Option or Memory", either)?;
    }
    let words = "LoadError::Memory, with more needed than available";
    for options in [
        usual.clone().kv_tokens(usize::MAX),
        usual.clone().kv_tokens(usize::MAX / 2),
        usual.clone().kv_tokens(1 << 40),
        usual.kv_tokens(64).kv_bytes(16),
    ] {
        refuse(options, words, memory)?;
    }
    Ok(Outcome::Passed)
}

/// Sessions do not share sequences.
pub fn sessions_share_no_kv(fixture: &Fixture) -> CaseResult {
    let (mut left, mut right) = (fixture.session()?, fixture.session()?);
    let (a, b) = (fixture.tokens(8, 1)?, fixture.tokens(8, 2)?);
    let next = fixture.tokens(1, 3)?;
    left.feed(0, 0, &a, 0)?;
    right.feed(0, 0, &b, 0)?;
    for (name, run, tokens) in [("first", &mut left, &a), ("second", &mut right, &b)] {
        let rows = run.pass(&[(0, 8, &next, 1)])?;
        let expected = super::rows::plain(fixture, &[&tokens[..], &next].concat())?.split_off(8);
        let input = format!("two sessions with other tokens in sequence 0; the {name} goes on");
        check(clause::OWN_KV, input).same(&rows, &expected, fixture.tolerance)?;
    }
    left.release(0);
    let rows = right.pass(&[(0, 9, &next, 1)])?;
    let expected = super::rows::plain(fixture, &[&b[..], &next, &next].concat())?.split_off(9);
    check(clause::OWN_KV, "a session after another released its sequence").same(
        &rows,
        &expected,
        fixture.tolerance,
    )?;
    Ok(Outcome::Passed)
}
