//! Models, and requests that are refused at once.

use super::fixture::GeneratorFixture;
use crate::check::check;
use crate::clause::{self};
use crate::failure::{CaseResult, Outcome};
use exsa_core::{Request, SamplingParams, SubmitError};

/// There is at least one model, and a request can name the default model.
pub fn the_models_are_named(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::MODELS, "`models`");
    let models = fixture.generator.models();
    let Some(first) = models.first() else { return Err(check.fail("a model", "none")) };
    if !first.name.is_empty() {
        let request = fixture.request("Once", 2).model(&first.name);
        fixture.answer(request, &check)?;
    }
    Ok(Outcome::Passed)
}

fn wrong() -> Vec<(&'static str, Request)> {
    let request = || Request::text("Once upon a time");
    vec![
        ("no token at all", request().max_tokens(0)),
        ("an empty prompt", Request::tokens([])),
        ("a temperature that is no number", request().temperature(f32::NAN)),
        ("a negative top-p", request().sampling(SamplingParams::default().top_p(-1.0))),
        ("no answer", request().n(0)),
        ("a thousand million answers", request().n(1_000_000_000)),
        ("a share that is no number", request().weight(f32::NAN)),
        ("an empty stop string", request().stop("")),
    ]
}

/// Invalid requests are refused at once, with a message, and do not affect other requests.
pub fn wrong_requests_are_refused(fixture: &GeneratorFixture) -> CaseResult {
    for (what, request) in wrong() {
        let check = check(clause::REFUSALS, format!("`submit` with {what}"));
        check.refused(fixture.generator.submit(request), "a refusal at once", |error| {
            !matches!(error, SubmitError::QueueFull { .. } | SubmitError::ShuttingDown)
        })?;
    }
    let check = check(clause::REFUSALS, "a right request after wrong ones");
    fixture.answer(fixture.request("Once upon a time", 3), &check)?;
    Ok(Outcome::Passed)
}

/// `check` accepts the requests that `submit` accepts, and only refuses requests that `submit` refuses.
pub fn check_agrees_with_submit(fixture: &GeneratorFixture) -> CaseResult {
    let accepted = check(clause::REFUSALS, "`check` with a right request");
    accepted.works(fixture.generator.check(&fixture.request("Once upon a time", 3)))?;
    for (what, request) in wrong() {
        let check = check(clause::REFUSALS, format!("`check` with {what}"));
        if fixture.generator.check(&request).is_err() {
            check.refused(fixture.generator.submit(request), "`submit` refuses it too", |_| true)?;
        }
    }
    Ok(Outcome::Passed)
}
