//! Log-probability of a given token, for tokens that are not sampled, such as those of a prompt.

use super::candidates::Candidates;
use super::{SampleError, SampleScratch, Sampler, log_total, relative};
use crate::token::TokenId;

/// Log-probability of a token under the model, and the most probable tokens at its position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Score {
    /// Natural logarithm of the token's probability.
    pub(crate) logprob: f32,
    /// Tokens with their log-probabilities, best first, without tokens of probability 0.
    pub(crate) top: Vec<(TokenId, f32)>,
}

impl Sampler {
    /// Scores `token` by the row of logits of the preceding position, with the `top` most probable tokens.
    /// The sampler's transforms and parameters are ignored.
    pub(crate) fn score(
        &self,
        logits: &[f32],
        token: TokenId,
        top: usize,
        scratch: &mut SampleScratch,
    ) -> Result<Score, SampleError> {
        let n_vocab = self.n_vocab;
        if logits.len() != n_vocab {
            return Err(SampleError::Length { found: logits.len(), expected: n_vocab });
        }
        let mut candidates = Candidates::new(logits, &mut scratch.buffers)
            .map_err(|index| SampleError::NotANumber { index, n_vocab })?;
        let Some((_, best)) = candidates.best() else { return Err(SampleError::NoCandidate { n_vocab }) };
        let mut top: Vec<_> = if top > 0 { candidates.top(top).collect() } else { Vec::new() };
        let total = log_total(logits, best);
        top.iter_mut().for_each(|(_, logit)| *logit = relative(*logit, best, total));
        top.retain(|&(_, logprob)| logprob > f32::NEG_INFINITY);
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Ok(Score { logprob: relative(logit, best, total), top })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::{SamplerContext, SamplingParams};

    fn score(logits: &[f32], token: TokenId, top: usize) -> Result<Score, SampleError> {
        let sampler = SamplingParams::greedy().build(&SamplerContext::new(4)).unwrap();
        sampler.score(logits, token, top, &mut SampleScratch::default())
    }

    #[test]
    fn a_score_is_the_softmax_of_the_row() {
        let logits = [1.0f32, 3.0, f32::NEG_INFINITY, 2.0];
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        for token in 0..4 {
            let scored = score(&logits, token, 4).unwrap();
            let expected = (f64::from(logits[token as usize]) - total.ln()) as f32;
            assert!(scored.logprob == expected || (scored.logprob - expected).abs() < 1e-6, "{scored:?}");
            assert_eq!(scored.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 0]);
            let of_top = scored.top.iter().find(|(id, _)| *id == token);
            assert!(of_top.is_none_or(|(_, logprob)| *logprob == scored.logprob));
        }
        assert_eq!(score(&logits, 9, 0).unwrap().logprob, f32::NEG_INFINITY);
    }

    #[test]
    fn rows_without_a_distribution_are_errors() {
        let found = score(&[0.0, f32::NAN, 0.0, 0.0], 0, 1);
        assert_eq!(found, Err(SampleError::NotANumber { index: 1, n_vocab: 4 }));
        let found = score(&[f32::NEG_INFINITY; 4], 0, 1);
        assert_eq!(found, Err(SampleError::NoCandidate { n_vocab: 4 }));
        let found = score(&[0.0; 3], 0, 1);
        assert_eq!(found, Err(SampleError::Length { found: 3, expected: 4 }));
    }
}
