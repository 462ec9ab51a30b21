//! Resumed answers.

use super::fixture::{GeneratorFixture, skipped};
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use exsa_core::{Continued, FinishReason, Resume};

/// An answer that is resumed after any of its tokens continues without gap or repetition.
pub fn an_answer_resumes_after_any_token(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::RESUME, "an answer of 12 tokens, cut after each");
    let terms = fixture.generator.continuation(None);
    if terms.continued == Continued::Refused || !fixture.ids {
        return skipped(Outcome::Skipped("the generator does not continue answers".into()));
    }
    let request = fixture.drawn("Once upon a time", 12, 5);
    let whole = fixture.answer(request.clone(), &check)?;
    let ids = whole.ids(0);
    check.equal(ids.len(), 12)?;
    for cut in 0..=ids.len() {
        let rest = fixture.answer(request.clone().resume(Resume::new(&ids[..cut])), &check)?;
        check.equal(rest.finished().reason, FinishReason::MaxTokens)?;
        check.equal(rest.ids(0).len(), ids.len() - cut)?;
        check.equal(rest.finished().usage.completion_tokens, ids.len())?;
        if terms.continued == Continued::Identical {
            check.equal(rest.ids(0), ids[cut..].to_vec())?;
            check.holds(whole.text(0).ends_with(&rest.text(0)), "the rest of the text", rest.text(0))?;
        }
    }
    Ok(Outcome::Passed)
}
