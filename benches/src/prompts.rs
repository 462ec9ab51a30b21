//! Prompts of random tokens.

use crate::error::BenchError;
use crate::random::Random;
use exsa_core::TokenId;
use exsa_core::backend::Model;
use exsa_core::tokenizer::Tokenizer;

/// Draws prompts for one model.
pub struct Prompts {
    ordinary: Vec<TokenId>,
    seed: u64,
}

impl Prompts {
    /// Prompts of the tokens of `model` that are text.
    pub fn new(model: &dyn Model, seed: u64) -> Result<Self, BenchError> {
        Self::of(&*model.tokenizer(), model.info().n_vocab, seed)
    }

    /// Prompts of the tokens that `tokenizer` knows as text, below `n_vocab`.
    pub fn of(tokenizer: &dyn Tokenizer, n_vocab: usize, seed: u64) -> Result<Self, BenchError> {
        let n = tokenizer.n_vocab().min(n_vocab);
        let ids = 0..u32::try_from(n).unwrap_or(u32::MAX);
        let ordinary: Vec<_> = ids.filter(|id| !tokenizer.is_control(*id)).collect();
        if ordinary.is_empty() { Err(BenchError::Vocabulary) } else { Ok(Self { ordinary, seed }) }
    }

    /// One prompt for each of `lengths`; others for each `run`, so that nothing computed before can be of
    /// use.
    pub fn draw(&self, lengths: &[usize], run: u64) -> Vec<Vec<TokenId>> {
        let mut random = Random::nth(self.seed, run);
        let mut token = || self.ordinary[random.below(self.ordinary.len())];
        lengths.iter().map(|len| (0..*len).map(|_| token()).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::scripted::{ByteTokenizer, ScriptedModel};

    #[test]
    fn prompts_have_their_lengths_and_no_control_token() {
        let model = ScriptedModel::ngram(1).shared();
        let prompts = Prompts::new(&*model, 3).unwrap();
        let drawn = prompts.draw(&[1, 500, 7], 0);
        assert_eq!(drawn.iter().map(Vec::len).collect::<Vec<_>>(), [1, 500, 7]);
        assert!(drawn.iter().flatten().all(|id| *id < ByteTokenizer::BOS));
        assert_eq!(drawn, prompts.draw(&[1, 500, 7], 0));
        assert_ne!(drawn, prompts.draw(&[1, 500, 7], 1));
    }
}
