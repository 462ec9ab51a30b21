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

mod candidates;
mod exp;
mod logit_bias;
mod min_p;
mod params;
mod penalties;
mod random;
mod scan;
mod temperature;
mod top_k;
mod top_p;
mod transform;
mod window;

#[cfg(test)]
mod tests;

pub use params::{SamplingError, SamplingParams};

use crate::token::TokenId;
use candidates::{Buffers, Candidates};
use random::Random;
use transform::{Step, Transform};

/// Turns rows of logits into tokens, for one sequence.
///
/// The result of [`sample`](Self::sample) depends on its arguments and the parameters alone, and is the same on
/// every processor: a sequence that was preempted and comes back goes on with the tokens that it would have
/// had. What a sampler remembers between calls only spares it from counting the history again.
#[derive(Debug)]
pub struct Sampler {
    n_vocab: usize,
    seed: u64,
    logprobs: bool,
    choice: Choice,
    /// In the order in which they are applied.
    transforms: Vec<Box<dyn Transform>>,
}

/// How a token is taken from the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The best one.
    Greedy,
    /// A random one, by its probability.
    Draw,
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
/// grows to at most about 20 bytes for each token of the vocabulary and then stays.
#[derive(Debug, Default)]
pub struct SampleScratch {
    buffers: Buffers,
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
    /// - `logits`: one row, `[n_vocab]`, f32, as the model gave it. Negative infinity rules a token out; where some
    ///   are positive infinity, one of those is taken.
    /// - `history`: the tokens of the sequence so far, prompt and generated, for the penalties.
    /// - `position`: place of the new token in the sequence, which with the seed decides the random number.
    /// - `scratch`: memory to work in; what it holds does not matter.
    pub fn sample(
        &mut self,
        logits: &[f32],
        history: &[TokenId],
        position: u64,
        scratch: &mut SampleScratch,
    ) -> Result<Sampled, SampleError> {
        let n_vocab = self.n_vocab;
        if logits.len() != n_vocab {
            return Err(SampleError::Length { found: logits.len(), expected: n_vocab });
        }
        let mut candidates = Candidates::new(logits, &mut scratch.buffers)
            .map_err(|index| SampleError::NotANumber { index, n_vocab })?;
        let given_best = candidates.best();
        let mut step = Step { history, random: Random::new(self.seed, position) };
        for transform in &mut self.transforms {
            transform.apply(&mut candidates, &mut step);
        }
        let token = match self.choice {
            Choice::Greedy => candidates.best().map(|(token, _)| token),
            Choice::Draw => candidates.draw(&mut step.random),
        };
        let (Some(token), Some((_, best))) = (token, given_best) else {
            return Err(SampleError::NoCandidate { n_vocab });
        };
        let logprob = self.logprobs.then(|| logprob(logits, token, best));
        Ok(Sampled { token, logprob })
    }

    /// The seed that the random numbers come from.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// Natural logarithm of the probability of `token`: its logit less the logarithm of the sum of all exponentials,
/// with the largest logit, `best`, taken out so that nothing overflows.
fn logprob(logits: &[f32], token: TokenId, best: f32) -> f32 {
    let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    if best == f32::INFINITY {
        let infinite = logits.iter().filter(|&&x| x == f32::INFINITY).count();
        return if logit == f32::INFINITY { -(infinite as f64).ln() as f32 } else { f32::NEG_INFINITY };
    }
    let sum: f64 = logits.chunks(scan::CHUNK).map(|chunk| exp::mass(chunk, best, 1.0)).sum();
    (f64::from(logit) - f64::from(best) - sum.ln()) as f32
}
