//! Every accepted request ends exactly once.

use super::fixture::GeneratorFixture;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use exsa_core::{Event, FinishReason};
use std::time::{Duration, Instant};

/// A request ends with exactly one last event.
pub fn every_request_ends_once(fixture: &GeneratorFixture) -> CaseResult {
    for tokens in [1, 2, 20] {
        let check = check(clause::ENDS, format!("an answer of {tokens} tokens"));
        let answer = fixture.answer(fixture.request("Once upon a time", tokens), &check)?;
        check.equal(answer.finished().reason, FinishReason::MaxTokens)?;
    }
    Ok(Outcome::Passed)
}

/// Cancelling ends a request, before and after its first token.
pub fn a_cancelled_request_ends(fixture: &GeneratorFixture) -> CaseResult {
    for read in [0, 1, 5] {
        let check = check(clause::CANCELS, format!("a cancel after {read} events"));
        let mut stream = check.works(fixture.generator.submit(fixture.request("Once upon a time", 250)))?;
        for _ in 0..read {
            check.holds(stream.next_timeout(fixture.patience).is_some(), "an event", "none")?;
        }
        stream.cancel();
        let reason = fixture.read(stream, &check)?.finished().reason;
        let expected = matches!(reason, FinishReason::Cancelled | FinishReason::MaxTokens);
        check.holds(expected, "the end of a cancelled request", reason)?;
    }
    Ok(Outcome::Passed)
}

/// Dropping a stream frees the resources of its request.
pub fn a_dropped_stream_ends_its_request(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::CANCELS, "40 streams that are dropped");
    for i in 0..40 {
        let mut stream = check.works(fixture.generator.submit(fixture.request("Once upon a time", 250)))?;
        if i % 2 == 0 {
            check.holds(stream.next_timeout(fixture.patience).is_some(), "an event", "none")?;
        }
    }
    let start = Instant::now();
    loop {
        let stats = fixture.generator.stats();
        if stats.scheduler.running + stats.scheduler.waiting == 0 {
            break;
        }
        check.holds(start.elapsed() < fixture.patience, "no request is left", stats.scheduler)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    fixture.answer(fixture.request("Once upon a time", 3), &check)?;
    Ok(Outcome::Passed)
}

/// Time limits end a request, with a finish reason that tells which limit.
pub fn time_limits_end_requests(fixture: &GeneratorFixture) -> CaseResult {
    let late = check(clause::TIMES, "a request whose time is over at once");
    let request = fixture.request("Once upon a time", 250).timeout(Duration::ZERO);
    late.equal(fixture.answer(request, &late)?.finished().reason, FinishReason::Deadline)?;
    let first = check(clause::TIMES, "no time for a first token");
    let request = fixture.request("Once upon a time", 250).first_token_timeout(Duration::ZERO);
    first.equal(fixture.answer(request, &first)?.finished().reason, FinishReason::FirstTokenTimeout)?;
    let enough = check(clause::TIMES, "enough time");
    let request = fixture.request("Once upon a time", 5).timeout(fixture.patience);
    let answer = fixture.answer(request.first_token_timeout(fixture.patience), &enough)?;
    enough.equal(answer.finished().reason, FinishReason::MaxTokens)?;
    let tokens = answer.events.iter().filter(|event| matches!(event, Event::Token(_))).count();
    enough.holds(tokens > 0, "tokens", tokens)?;
    Ok(Outcome::Passed)
}
