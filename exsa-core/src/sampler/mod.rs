//! Sampling of a token from a row of logits.
//!
//! [`SamplingParams::build`] validates parameters once and builds a [`Sampler`], a chain of transforms over
//! the candidates followed by a draw:
//!
//! 1. minimum number of tokens, which bans tokens that would end the answer,
//! 2. logit bias,
//! 3. repetition, frequency and presence penalties,
//! 4. DRY,
//! 5. the host's transforms,
//! 6. top-nσ,
//! 7. top-k,
//! 8. typical-p,
//! 9. top-p,
//! 10. min-p,
//! 11. XTC,
//! 12. temperature, fixed or dynamic,
//! 13. adaptive-p,
//! 14. mirostat, version 1 or 2, in place of the filters 6 to 11.
//!
//! A constraint masks the tokens that its grammar does not allow, before the first step.
//!
//! [`SamplingParams::order`] changes the order of 3 to 13. The default order is llama.cpp's: filters apply to
//! the model's own distribution, and temperature then reshapes the remaining one. Neutral steps are left out
//! of the chain. Temperature 0 is greedy decoding: the best logit after steps 1 to 5, with ties broken by the
//! lowest id; the other steps are skipped.
//!
//! The state of a transform changes only when a token is accepted. Mirostat and adaptive-p observe the
//! probability of each drawn token; [`SamplerState`] carries these observations to a resumed request.
//!
//! The draw is Gumbel-max: each candidate's logit, divided by the temperature, plus Gumbel noise that
//! is a function of (seed, position, token); the largest sum is drawn. Its distribution is exactly the
//! softmax. Since a token's noise does not depend on the logits or on the other candidates, two similar
//! distributions mostly draw the same token: at total variation distance TV, with probability at least
//! (1 - TV) / (1 + TV) (Daliri, Musco, Suresh: "Coupling without communication and drafter-invariant
//! speculative decoding", arXiv:2408.07978; for LLMs, arXiv:2504.15475). A draft model with the same
//! seed is accepted that often. The source file `sampler/noise.rs` specifies the noise bit for bit.

mod candidates;
mod chain;
mod error;
mod exp;
mod ln;
mod noise;
mod order;
mod params;
mod random;
mod scan;
mod score;
mod state;
mod transform;
mod transforms;

#[cfg(test)]
mod tests;

pub use candidates::Candidates;
pub use error::SamplingError;
pub use order::{Mirostat, TransformKind};
pub use params::SamplingParams;
pub(crate) use params::TOP_LOGPROBS_MAX;
pub use state::SamplerState;
pub use transform::{Accepted, SamplerContext, Step, Transform, TransformFactory};

use crate::token::TokenId;
use candidates::Buffers;
use noise::Noise;

/// Turns rows of logits into tokens, for one sequence.
///
/// [`sample`](Self::sample) is a function of the parameters, its arguments and the
/// tokens [accepted](Self::accept) so far, the same on every processor. A preempted
/// or resumed sequence therefore continues with the same tokens as without the
/// interruption. Sampling alone changes no transform: committing a token requires a
/// call of `accept`, and taking tokens back a call of [`rollback`](Self::rollback).
#[derive(Debug)]
pub struct Sampler {
    n_vocab: usize,
    seed: u64,
    logprobs: bool,
    top_logprobs: usize,
    choice: Choice,
    /// Whether a transform needs the log probabilities of accepted tokens.
    needs_logprob: bool,
    /// The last token sampled and its log probability if needed, until it is accepted.
    drawn: Option<(TokenId, Option<f32>)>,
    /// Number of accepted tokens.
    accepted: usize,
    /// Transforms in order of application.
    transforms: Vec<Box<dyn Transform>>,
}

/// How a token is chosen from the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The best candidate.
    Greedy,
    /// A random candidate, by probability.
    Draw,
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of the token's probability under the model's unmodified logits, before
    /// bias, penalties and temperature; `None` unless requested by [`SamplingParams::logprobs`].
    pub logprob: Option<f32>,
    /// The most probable tokens under the same distribution with their log probabilities,
    /// best first; at most [`SamplingParams::top_logprobs`], without tokens of probability 0.
    pub top_logprobs: Vec<(TokenId, f32)>,
}

/// Scratch memory of [`Sampler::sample`], reusable by any number of samplers
/// in turn. It grows to at most about 20 bytes per token of the vocabulary.
#[derive(Debug, Default)]
pub struct SampleScratch {
    buffers: Buffers,
}

/// Sampling error. The sequence cannot continue; other sequences are not affected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The row length differs from the vocabulary size.
    #[error("a row of {found} logits for a vocabulary of {expected}")]
    Length {
        /// Values in the row.
        found: usize,
        /// Size of the vocabulary.
        expected: usize,
    },
    /// A logit is NaN.
    #[error("logit {index} of {n_vocab} is not a number")]
    NotANumber {
        /// The lowest token whose logit is NaN.
        index: usize,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// Every token is excluded, by a logit of negative infinity, the logit bias or a transform.
    #[error("no token is left to choose from: all {n_vocab} logits are negative infinity")]
    NoCandidate {
        /// Size of the vocabulary.
        n_vocab: usize,
    },
}

impl Sampler {
    /// Samples the token that follows `history`.
    ///
    /// - `logits`: one row of the model, `[n_vocab]`, f32. Negative infinity excludes
    ///   a token; if some logits are positive infinity, one of their tokens is chosen.
    /// - `history`: tokens of the sequence so far, prompt and generated; the last ones are those that were
    ///   [accepted](Self::accept), the others are the prompt.
    /// - `position`: position of the new token in the sequence;
    ///   with the seed it determines the random numbers.
    /// - `scratch`: scratch memory; its contents do not matter.
    ///
    /// # Errors
    ///
    /// [`SampleError`]: the row has the wrong length, contains NaN, or leaves no candidate.
    pub fn sample(
        &mut self,
        logits: &[f32],
        history: &[TokenId],
        position: u64,
        scratch: &mut SampleScratch,
    ) -> Result<Sampled, SampleError> {
        self.sample_masked(logits, history, position, None, scratch)
    }

    /// Like [`sample`](Self::sample), with a filter before the chain: only tokens whose bit in `mask` is set
    /// are candidates, as in [`Candidates::retain`].
    ///
    /// # Errors
    ///
    /// Those of [`sample`](Self::sample).
    pub fn sample_masked(
        &mut self,
        logits: &[f32],
        history: &[TokenId],
        position: u64,
        mask: Option<&[u64]>,
        scratch: &mut SampleScratch,
    ) -> Result<Sampled, SampleError> {
        let n_vocab = self.n_vocab;
        if logits.len() != n_vocab {
            return Err(SampleError::Length { found: logits.len(), expected: n_vocab });
        }
        let mut candidates = Candidates::new(logits, &mut scratch.buffers)
            .map_err(|index| SampleError::NotANumber { index, n_vocab })?;
        let given_best = candidates.best();
        let mut top_logprobs = Vec::new();
        if self.top_logprobs > 0 {
            top_logprobs.extend(candidates.top(self.top_logprobs));
        }
        if let Some(mask) = mask {
            candidates.retain(mask);
        }
        let mut step = Step::new(history, self.accepted, self.seed, position);
        for transform in &mut self.transforms {
            transform.apply(&mut candidates, &mut step);
        }
        let token = match self.choice {
            Choice::Greedy => candidates.best().map(|(token, _)| token),
            Choice::Draw => candidates.draw(&Noise::new(self.seed, position)),
        };
        let (Some(token), Some((_, best))) = (token, given_best) else {
            return Err(SampleError::NoCandidate { n_vocab });
        };
        let drawn_logprob = self.needs_logprob.then(|| match self.choice {
            Choice::Greedy => 0.0,
            Choice::Draw => candidates.logprob(token),
        });
        self.drawn = Some((token, drawn_logprob));
        let mut logprob = None;
        if self.logprobs || self.top_logprobs > 0 {
            let total = log_total(logits, best);
            let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            logprob = self.logprobs.then(|| relative(logit, best, total));
            top_logprobs.iter_mut().for_each(|(_, logit)| *logit = relative(*logit, best, total));
            top_logprobs.retain(|&(_, logprob)| logprob > f32::NEG_INFINITY);
        }
        Ok(Sampled { token, logprob, top_logprobs })
    }

    /// Informs the transforms that `token` was appended to the sequence. Its log probability
    /// is that of the last [`sample`](Self::sample) call, if that returned this token.
    pub fn accept(&mut self, token: TokenId) {
        let drawn = self.drawn.take().filter(|&(drawn, _)| drawn == token);
        let logprob = drawn.and_then(|(_, logprob)| logprob);
        let accepted = Accepted { token, logprob, drawn: drawn.is_some() };
        self.accepted += 1;
        for transform in &mut self.transforms {
            transform.accept(&accepted);
        }
    }

    /// Discards the last draw, which was not for the answer.
    pub(crate) fn forget_draw(&mut self) {
        self.drawn = None;
    }

    /// Undoes the last `n` calls of [`accept`](Self::accept).
    pub fn rollback(&mut self, n: usize) {
        self.drawn = None;
        self.accepted = self.accepted.saturating_sub(n);
        for transform in &mut self.transforms {
            transform.rollback(n);
        }
    }

    /// Values that the transforms observed for the accepted tokens; `None` if no transform observes values.
    pub fn state(&self) -> Option<SamplerState> {
        let state =
            SamplerState::new(self.transforms.iter().filter_map(|transform| transform.observations()));
        (!state.is_empty()).then_some(state)
    }

    /// Values that the transforms observed for the accepted token at `index`; empty if no transform observes
    /// values.
    pub fn observed(&self, index: usize) -> Vec<f32> {
        let observations = self.transforms.iter().filter_map(|transform| transform.observations());
        observations.map(|values| values.get(index).copied().unwrap_or(f32::NAN)).collect()
    }

    /// Restores the values that an earlier run observed, before its `generated` tokens are accepted again.
    /// Without them, mirostat and adaptive-p start from their initial state.
    ///
    /// # Errors
    ///
    /// [`SamplingError::State`] if the state belongs to other sampling parameters.
    pub fn restore(&mut self, state: &SamplerState, generated: usize) -> Result<(), SamplingError> {
        let observing = || self.transforms.iter().filter(|transform| transform.observations().is_some());
        let (found, expected) = (state.len(), observing().count());
        if found != expected {
            return Err(SamplingError::State { found, expected });
        }
        let observing = self.transforms.iter_mut().filter(|transform| transform.observations().is_some());
        for (transform, values) in observing.zip(state.observations(generated)) {
            transform.restore(&values);
        }
        Ok(())
    }

    /// Accepts the tokens that an earlier run of a resumed request generated, oldest first. Their log
    /// probabilities are unknown to the transforms, unless they were [restored](Self::restore).
    pub fn replay(&mut self, generated: &[TokenId]) {
        self.drawn = None;
        for &token in generated {
            self.accept(token);
        }
    }

    /// Whether log probabilities of sampled tokens are computed, and the number of most probable
    /// alternatives.
    pub(crate) fn logprobs(&self) -> Option<(bool, usize)> {
        (self.logprobs || self.top_logprobs > 0).then_some((self.logprobs, self.top_logprobs))
    }

    /// The seed of the random numbers.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// Logarithm of the sum of e^(logit - best), or of the number of infinite logits if `best` is infinite.
fn log_total(logits: &[f32], best: f32) -> f64 {
    let total = if best == f32::INFINITY {
        logits.iter().filter(|&&x| x == f32::INFINITY).count() as f64
    } else {
        logits.chunks(scan::CHUNK).map(|chunk| exp::mass(chunk, best, 1.0)).sum()
    };
    total.ln()
}

/// Log probability of a token with this logit; the largest logit is subtracted to avoid overflow.
fn relative(logit: f32, best: f32, total: f64) -> f32 {
    match (logit == f32::INFINITY, best == f32::INFINITY) {
        (true, _) => -total as f32,
        (false, true) => f32::NEG_INFINITY,
        (false, false) => (f64::from(logit) - f64::from(best) - total) as f32,
    }
}
