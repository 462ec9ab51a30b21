//! Logit bias: values added to the logits of individual tokens.

use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};
use crate::token::TokenId;

/// Adds to logits; negative infinity bans a token, even with a logit of positive infinity.
#[derive(Debug)]
pub(in crate::sampler) struct LogitBias {
    /// One entry per token, below `n_vocab`; values are finite or negative infinity.
    pub biases: Vec<(TokenId, f32)>,
}

impl Transform for LogitBias {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        for &(token, bias) in &self.biases {
            candidates.change(token, |logit| if bias == f32::NEG_INFINITY { bias } else { logit + bias });
        }
    }
}
