//! DRY, "don't repeat yourself": penalizes tokens that would continue a repetition; the longer the
//! repetition, the larger the penalty (p-e-w, text-generation-webui pull request 5677, 2024).

use super::breakers::Breakers;
use crate::sampler::candidates::Candidates;
use crate::sampler::transform::{Step, Transform};
use crate::token::TokenId;

/// Let `n` be the number of last tokens of the sequence that also occur at an earlier place; a match does not
/// extend across the last sequence breaker. The token that follows at the earlier place gets a penalty of
/// `multiplier * base^(n - allowed_length)`, if `n` is at least `allowed_length`. If there are several such
/// places, the longest match is used. Breakers themselves get no penalty.
#[derive(Debug)]
pub(in crate::sampler) struct Dry {
    pub multiplier: f32,
    /// 1 or more.
    pub base: f32,
    /// Above 0.
    pub allowed_length: usize,
    /// Number of last tokens considered, prompt and generated.
    pub window: usize,
    pub breakers: Breakers,
    pub matches: Matches,
}

impl Transform for Dry {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>) {
        let Self { multiplier, base, allowed_length, window, breakers, matches } = self;
        let history = step.history();
        let tokens = &history[history.len().saturating_sub(*window)..];
        let longest = breakers.distance(tokens);
        if longest < *allowed_length {
            return;
        }
        // Candidates keep the logits from before temperature, but a penalty applies to the logits after
        // temperature.
        let scale = candidates.scale();
        for &(token, len) in matches.find(tokens, *allowed_length, longest) {
            if !breakers.contains(token) {
                let penalty = penalty(*multiplier, *base, len - *allowed_length) / scale;
                candidates.change(token, |logit| logit - penalty);
            }
        }
    }
}

/// The penalty of a match that is `excess` tokens longer than allowed; finite.
fn penalty(multiplier: f32, base: f32, excess: usize) -> f32 {
    // By multiplication, which rounds equally on every processor, unlike the platform's `pow`.
    let (mut power, mut square, mut rest) = (1.0, f64::from(base), excess);
    while rest > 0 {
        if rest & 1 == 1 {
            power *= square;
        }
        square *= square;
        rest >>= 1;
    }
    (f64::from(multiplier) * power).min(f64::from(f32::MAX)) as f32
}

/// Finds the tokens that followed earlier occurrences of the end of a sequence.
#[derive(Debug, Default)]
pub(in crate::sampler) struct Matches {
    /// Match lengths by distance from the end: how many tokens up to there equal the last tokens.
    lens: Vec<u32>,
    /// Tokens that followed a match, with the length of the longest match.
    found: Vec<(TokenId, usize)>,
}

impl Matches {
    /// The tokens that followed matches of `shortest` tokens or more, each with the length of its longest
    /// match, at most `longest`. Takes time in proportion to the number of tokens, by the Z algorithm
    /// (Gusfield: "Algorithms on strings, trees, and sequences", 1997, section 1.4) on the reversed sequence.
    fn find(&mut self, tokens: &[TokenId], shortest: usize, longest: usize) -> &[(TokenId, usize)] {
        let Self { lens, found } = self;
        found.clear();
        lens.clear();
        lens.resize(tokens.len(), 0);
        let at = |distance: usize| tokens[tokens.len() - 1 - distance];
        // The match that reaches furthest back: distances `begin..end` equal `0..end - begin`.
        let (mut begin, mut end) = (0, 0);
        for distance in 1..tokens.len() {
            let known =
                if distance < end { (lens[distance - begin] as usize).min(end - distance) } else { 0 };
            let mut len = known;
            if distance + known >= end {
                while distance + len < tokens.len() && at(len) == at(distance + len) {
                    len += 1;
                }
                if len > 0 {
                    (begin, end) = (distance, distance + len);
                }
            }
            lens[distance] = len as u32;
            let len = len.min(longest);
            if len >= shortest {
                found.push((at(distance - 1), len));
            }
        }
        // By token, the longest match first.
        found.sort_unstable_by_key(|&(token, len)| (token, std::cmp::Reverse(len)));
        found.dedup_by_key(|&mut (token, _)| token);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every earlier place compared token by token.
    fn naive(tokens: &[TokenId], shortest: usize, longest: usize) -> Vec<(TokenId, usize)> {
        let mut best = std::collections::BTreeMap::new();
        for end in 1..tokens.len() {
            let backwards = tokens[..end].iter().rev().zip(tokens.iter().rev());
            let len = backwards.take_while(|(a, b)| a == b).count().min(longest);
            if len >= shortest {
                let entry = best.entry(tokens[end]).or_insert(len);
                *entry = len.max(*entry);
            }
        }
        best.into_iter().collect()
    }

    proptest! {
        #[test]
        fn matches_are_those_of_a_plain_search(
            tokens in proptest::collection::vec(0u32..3, 0..60),
            shortest in 1usize..4,
            longest in 0usize..20,
        ) {
            let mut matches = Matches::default();
            matches.find(&[1; 50], 1, 50);
            prop_assert_eq!(matches.find(&tokens, shortest, longest), naive(&tokens, shortest, longest));
        }
    }

    #[test]
    fn penalties_are_powers_and_finite() {
        for excess in 0..40 {
            let want = 0.8 * 1.75f64.powi(excess);
            let got = f64::from(penalty(0.8, 1.75, excess as usize));
            assert!((got - want).abs() < want * 1e-6, "{excess}: {got} {want}");
        }
        assert_eq!(penalty(0.8, 1.75, usize::MAX), f32::MAX);
        assert_eq!(penalty(0.8, 1.0, usize::MAX), 0.8);
    }
}
