//! Answers: limits, seeds, usage, stop strings, several at once.

use super::fixture::{GeneratorFixture, skipped};
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Outcome};
use exsa_core::{Event, FinishReason};

/// The same greedy request has the same answer.
pub fn greedy_answers_do_not_change(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::SEEDS, "a greedy request twice");
    let answer = || fixture.answer(fixture.request("Once upon a time", 20), &check);
    let (first, second) = (answer()?, answer()?);
    if fixture.identical {
        check.equal(second.text(0), first.text(0))?;
        check.equal(second.ids(0), first.ids(0))?;
    }
    Ok(Outcome::Passed)
}

/// The same seed yields the same answer, and an answer reports its seed.
pub fn answers_are_reproducible(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::SEEDS, "a drawn request");
    let request = fixture.drawn("Once upon a time", 20, 42);
    let first = fixture.answer(request.clone(), &check)?;
    if let Some(seed) = first.finished().seed {
        check.equal(seed, 42)?;
    }
    if fixture.identical {
        check.equal(fixture.answer(request, &check)?.text(0), first.text(0))?;
        let mut open = fixture.drawn("Once upon a time", 20, 0);
        open.sampling.seed = None;
        let free = fixture.answer(open.clone(), &check)?;
        open.sampling.seed = free.finished().seed;
        check.holds(open.sampling.seed.is_some(), "the seed that was used", "none")?;
        check.equal(fixture.answer(open, &check)?.text(0), free.text(0))?;
    }
    Ok(Outcome::Passed)
}

/// Answers have exactly `max_tokens` tokens.
pub fn limits_of_tokens_hold(fixture: &GeneratorFixture) -> CaseResult {
    for tokens in [1, 2, 7, 33] {
        let check = check(clause::LIMITS, format!("max_tokens of {tokens}"));
        let answer = fixture.answer(fixture.request("Once upon a time", tokens), &check)?;
        if fixture.ids {
            check.equal(answer.ids(0).len(), tokens)?;
        }
        check.equal(answer.finished().reason, FinishReason::MaxTokens)?;
    }
    Ok(Outcome::Passed)
}

/// Usage counts prompt and answer.
pub fn usage_counts_the_tokens(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::USAGE, "an answer of 9 tokens");
    let request = fixture.request("Once upon a time", 9);
    let usage = fixture.answer(request.clone(), &check)?.finished().usage;
    check.equal(usage.completion_tokens, 9)?;
    check.holds(usage.prompt_tokens > 0, "tokens of the prompt", usage.prompt_tokens)?;
    if let Ok(counted) = fixture.generator.count_tokens(&request) {
        check.equal(usage.prompt_tokens, counted)?;
    }
    check.holds(!usage.total_time.is_zero(), "a time", usage.total_time)?;
    Ok(Outcome::Passed)
}

/// An answer ends just before a stop string.
pub fn stop_strings_are_no_part_of_the_text(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::STOPS, "a stop string from the middle of the answer");
    let whole = fixture.answer(fixture.request("Once upon a time", 40), &check)?.text(0);
    let characters: Vec<char> = whole.chars().collect();
    let Some(middle) = characters.get(8..11) else {
        return skipped(Outcome::Skipped("the answer has too little text".into()));
    };
    let stop: String = middle.iter().collect();
    let Some(expected) = whole.find(&stop).map(|at| &whole[..at]) else {
        return Err(check.fail("the text of the answer", whole));
    };
    let stream = match fixture.supported(fixture.request("Once upon a time", 40).stop(&stop), &check)? {
        Ok(stream) => stream,
        Err(outcome) => return skipped(outcome),
    };
    let answer = fixture.read(stream, &check)?;
    if fixture.identical {
        check.equal(answer.text(0), expected.to_owned())?;
        check.equal(answer.finished().reason, FinishReason::StopString(0))?;
    }
    check.holds(!answer.text(0).contains(&stop), "text without the stop string", answer.text(0))?;
    Ok(Outcome::Passed)
}

/// Several answers end once each, and each equals that of a request with its seed.
pub fn several_answers_end_once(fixture: &GeneratorFixture) -> CaseResult {
    let check = check(clause::SEVERAL, "three answers");
    let stream = match fixture.supported(fixture.drawn("Once upon a time", 12, 7).n(3), &check)? {
        Ok(stream) => stream,
        Err(outcome) => return skipped(outcome),
    };
    let answer = fixture.read(stream, &check)?;
    let mut ended = vec![answer.finished().index];
    for event in &answer.events {
        if let Event::AnswerFinished(end) = event {
            ended.push(end.index);
        }
    }
    ended.sort_unstable();
    check.equal(ended, vec![0, 1, 2])?;
    if fixture.identical {
        for index in 0..3 {
            let single = fixture.answer(fixture.drawn("Once upon a time", 12, 7 + index as u64), &check)?;
            check.equal(answer.text(index), single.text(0))?;
        }
    }
    Ok(Outcome::Passed)
}
