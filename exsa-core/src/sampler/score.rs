//! Log-probability of a given token, for tokens that are not sampled: those of a prompt.

use super::candidates::Candidates;
use super::{SampleError, SampleScratch, log_total, relative};
use crate::token::TokenId;

/// A token's log-probability under the model, and the most probable tokens in its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Score {
    /// Natural logarithm of the token's probability.
    pub(crate) logprob: f32,
    /// Tokens with their log-probabilities, best first, without tokens of probability 0.
    pub(crate) top: Vec<(TokenId, f32)>,
}

/// Scores `token` by the row of logits of the position before it, with the `top` most probable tokens.
pub(crate) fn score(
    logits: &[f32],
    token: TokenId,
    top: usize,
    scratch: &mut SampleScratch,
) -> Result<Score, SampleError> {
    let n_vocab = logits.len();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_softmax_of_the_row() {
        let logits = [1.0f32, 3.0, f32::NEG_INFINITY, 2.0];
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        let mut scratch = SampleScratch::default();
        for token in 0..4 {
            let scored = score(&logits, token, 4, &mut scratch).unwrap();
            let expected = (f64::from(logits[token as usize]) - total.ln()) as f32;
            assert!(scored.logprob == expected || (scored.logprob - expected).abs() < 1e-6, "{scored:?}");
            assert_eq!(scored.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 0]);
            let of_top = scored.top.iter().find(|(id, _)| *id == token);
            assert!(of_top.is_none_or(|(_, logprob)| *logprob == scored.logprob));
        }
        assert_eq!(score(&logits, 9, 0, &mut scratch).unwrap().logprob, f32::NEG_INFINITY);
    }

    #[test]
    fn rows_without_a_distribution_are_errors() {
        let mut scratch = SampleScratch::default();
        let found = score(&[0.0, f32::NAN], 0, 1, &mut scratch);
        assert_eq!(found, Err(SampleError::NotANumber { index: 1, n_vocab: 2 }));
        let found = score(&[f32::NEG_INFINITY; 3], 0, 1, &mut scratch);
        assert_eq!(found, Err(SampleError::NoCandidate { n_vocab: 3 }));
    }
}
