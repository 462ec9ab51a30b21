//! Minimum number of tokens: bans the tokens that end an answer until it has that many.

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};
use crate::token::TokenId;

#[derive(Debug)]
pub(in crate::sampler) struct MinTokens {
    /// Above 0.
    pub min: usize,
    /// End-of-generation and stop tokens, ascending.
    pub ends: Vec<TokenId>,
}

impl Transform for MinTokens {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>) {
        if step.generated() >= self.min {
            return;
        }
        let end = |id: TokenId| self.ends.binary_search(&id).is_ok();
        // If no other token is left, for example because a grammar is complete, the answer must end.
        if candidates.iter().all(|(id, _)| end(id)) {
            return;
        }
        for &id in &self.ends {
            candidates.change(id, |_| f32::NEG_INFINITY);
        }
    }
}
