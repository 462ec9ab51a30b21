//! Many requests at once.

use super::fixture::GeneratorFixture;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};

/// Answers under load equal those of the same requests alone.
pub fn many_requests_at_once_are_those_alone(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::BATCH, "24 requests at once");
    let requests: Vec<_> = (0..24).map(|i| fixture.drawn(&format!("Story {i}:"), 10 + i, i as u64)).collect();
    let streams = requests.iter().map(|request| check.works(fixture.generator.submit(request.clone())));
    let streams = streams.collect::<Result<Vec<_>, Failure>>()?;
    let together = streams.into_iter().map(|stream| fixture.read(stream, &check));
    let together = together.collect::<Result<Vec<_>, Failure>>()?;
    for (request, answer) in requests.into_iter().zip(together) {
        check.equal(Some(answer.finished().usage.completion_tokens), request.max_tokens)?;
        if fixture.identical {
            check.equal(answer.text(0), fixture.answer(request, &check)?.text(0))?;
        }
    }
    let stats = fixture.generator.stats();
    check.equal((stats.scheduler.running, stats.scheduler.waiting), (0, 0))?;
    Ok(Outcome::Passed)
}

/// Streams that are not read do not delay others, and lose no events.
pub fn a_consumer_that_does_not_read_delays_no_other(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::READERS, "two streams that are not read");
    let unread = [1, 2].map(|seed| fixture.drawn("Once upon a time", 200, seed));
    let unread = unread.map(|request| check.works(fixture.generator.submit(request)));
    let [first, second] = unread;
    let (first, second) = (first?, second?);
    for i in 0..8 {
        fixture.answer(fixture.request(&format!("Story {i}:"), 10), &check)?;
    }
    for stream in [first, second] {
        let answer = fixture.read(stream, &check)?;
        check.equal(answer.finished().usage.completion_tokens, 200)?;
    }
    Ok(Outcome::Passed)
}
