//! Answers withheld until all have ended, so that the best can be chosen.

use crate::finish::FinishReason;
use crate::stream::{AnswerFinished, Event};

/// An answer that has ended: the events before its last one, and the last.
pub(crate) struct Candidate {
    pub(crate) events: Vec<Event>,
    pub(crate) end: AnswerFinished,
}

impl Candidate {
    /// Rank of the answer's end: complete answers first, then answers that were cut off, then failed ones.
    fn class(&self) -> u8 {
        match self.end.reason {
            FinishReason::Failed(_) => 2,
            FinishReason::Cancelled | FinishReason::Deadline | FinishReason::FirstTokenTimeout => 1,
            _ => 0,
        }
    }

    fn mean(&self) -> f64 {
        self.end.logprob.map_or(f64::NEG_INFINITY, |logprob| logprob.mean())
    }
}

/// The best `n` candidates, best first, renumbered in this order. Candidates rank by mean log-probability per
/// token; ties go to the lower index.
pub(crate) fn best(mut candidates: Vec<Candidate>, n: usize) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| candidate.end.index);
    candidates.sort_by(|a, b| a.class().cmp(&b.class()).then(b.mean().total_cmp(&a.mean())));
    candidates.truncate(n);
    for (index, candidate) in candidates.iter_mut().enumerate() {
        candidate.events.iter_mut().for_each(|event| event.set_index(index));
        candidate.end.index = index;
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finish::RequestError;
    use crate::stream::{AnswerLogprob, Token};

    fn candidate(index: usize, reason: FinishReason, sum: f64, tokens: usize) -> Candidate {
        let events = vec![Event::Token(Token::new(index as u32, "").index(index))];
        let logprob = AnswerLogprob::new(sum, tokens);
        Candidate { events, end: AnswerFinished::new(index, reason).logprob(logprob) }
    }

    #[test]
    fn the_highest_mean_wins_among_answers_that_ended_by_themselves() {
        let failed = FinishReason::Failed(RequestError::EngineStopped);
        let candidates = vec![
            candidate(5, FinishReason::MaxTokens, -4.0, 4),
            candidate(0, failed, -0.1, 1),
            candidate(1, FinishReason::MaxTokens, -3.0, 2),
            candidate(2, FinishReason::Cancelled, -0.2, 1),
            candidate(3, FinishReason::EndOfGeneration, -4.0, 4),
            candidate(4, FinishReason::StopToken(1), -1.5, 3),
            candidate(6, FinishReason::MaxTokens, 0.0, 0),
        ];
        let best = best(candidates, 6);
        let ids: Vec<_> = best
            .iter()
            .map(|candidate| match &candidate.events[..] {
                [Event::Token(token)] => (token.id, token.index, candidate.end.index),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [4, 3, 5, 1, 6, 2].into_iter().zip(0..).map(|(id, index)| (Some(id), index, index));
        assert_eq!(ids, expected.collect::<Vec<_>>());
    }
}
