//! Estimates of memory.

use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use crate::fixture::Fixture;
use exsa_core::backend::{MemoryEstimate, SessionOptions};
use exsa_core::error::LoadError;

/// Estimates count the weights once, grow with the KV cache, and fail if creating the session would fail.
pub fn estimates_of_memory(fixture: &Fixture) -> CaseResult {
    let usual = fixture.options();
    let estimate =
        |options: &SessionOptions| fixture.backend.estimate(&fixture.source, &fixture.load_options, options);
    let input = |options: &SessionOptions| format!("estimate of {} with {options:?}", fixture.place());
    if let Err(LoadError::Unsupported { .. }) = estimate(&usual) {
        return Ok(Outcome::Skipped("the backend declares that it makes no estimates".into()));
    }
    let mut before: Option<MemoryEstimate> = None;
    for tokens in [64, 512, 4096] {
        let options = usual.clone().kv_tokens(tokens);
        let check = check(clause::ESTIMATE, input(&options));
        let found = check.works(estimate(&options))?;
        // A layout with a full context per sequence takes the same memory for any number of tokens.
        check.holds(found.kv > 0, "some KV", found)?;
        if let Some(before) = before {
            check.holds(found.weights == before.weights, "the same weights whatever the session", found)?;
            let least = format!("at least the KV of fewer tokens, {}", before.kv);
            check.holds(found.kv >= before.kv, &least, found)?;
        }
        before = Some(found);
    }
    let option = |error: &LoadError| matches!(error, LoadError::Option { .. });
    for options in [usual.clone().sequences(0), usual.clone().batch_tokens(0), usual.clone().kv_tokens(0)] {
        let check = check(clause::ESTIMATE, input(&options));
        check.refused(estimate(&options), "LoadError::Option", option)?;
    }
    let options = usual.kv_tokens(1 << 40);
    let memory = |error: &LoadError| matches!(error, LoadError::Memory { .. });
    check(clause::ESTIMATE, input(&options)).refused(estimate(&options), "LoadError::Memory", memory)?;
    Ok(Outcome::Passed)
}
