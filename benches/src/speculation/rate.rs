//! A proposer that knows the answers and drafts right tokens at a given rate.

use crate::random::Random;
use exsa_core::speculate::Proposer;
use exsa_core::{RequestId, TokenId};
use std::sync::{Arc, Mutex, PoisonError};

/// Prompts with their answers, as they came without drafts.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<Vec<TokenId>>>>);

impl Answers {
    pub(super) fn add(&self, sequence: Vec<TokenId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sequence);
    }
}

/// Drafts the next tokens of known answers. A draft is right with probability `rate`, by its position alone,
/// so that all rounds are alike.
#[derive(Debug)]
pub(super) struct KnownAnswers {
    answers: Answers,
    rate: f64,
    n_vocab: usize,
}

impl KnownAnswers {
    pub(super) fn new(answers: &Answers, rate: f64, n_vocab: usize) -> Self {
        Self { answers: answers.clone(), rate, n_vocab }
    }
}

impl Proposer for KnownAnswers {
    fn propose(&mut self, _id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        let answers = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((number, known)) = answers.iter().enumerate().find(|(_, known)| known.starts_with(tokens))
        else {
            return;
        };
        for (position, token) in known.iter().enumerate().skip(tokens.len()).take(max) {
            let mut random = Random::nth(number as u64, position as u64);
            let right = (random.below(1 << 20) as f64) < self.rate * f64::from(1 << 20);
            let wrong = (*token as usize + 1) % self.n_vocab;
            drafts.push(if right { *token } else { wrong as TokenId });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_right_at_the_rate() {
        let answers = Answers::default();
        let known: Vec<TokenId> = (0..5000).collect();
        answers.add(known.clone());
        for rate in [0.0, 0.3, 1.0] {
            let mut proposer = KnownAnswers::new(&answers, rate, 6000);
            let mut drafts = Vec::new();
            proposer.propose(RequestId(0), &known[..10], usize::MAX, &mut drafts);
            let right = drafts.iter().zip(&known[10..]).filter(|(a, b)| a == b).count();
            let share = right as f64 / drafts.len() as f64;
            assert!(drafts.len() == 4990 && (share - rate).abs() < 0.03, "{share} for {rate}");
        }
    }
}
