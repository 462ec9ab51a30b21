//! Drafts from the request's own tokens.

use super::{DraftSource, Proposer};
use crate::token::{RequestId, TokenId};

/// Prompt lookup decoding (Saxena 2023): finds an earlier occurrence of a request's last tokens in its prompt
/// or answer, and proposes the tokens that followed there. It is effective for answers that repeat parts of
/// their prompt: summaries, code edits, extraction.
///
/// Candidates match in at least `ngram_min` tokens; the longest match wins, up to `ngram_max`,
/// then the latest. It keeps no tokens and reads at most `window` tokens per step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PromptLookup {
    ngram_min: usize,
    ngram_max: usize,
    window: usize,
    /// Length of the last match.
    matched: usize,
}

impl Default for PromptLookup {
    /// Matches of 2 to 4 tokens within the last 8,192.
    fn default() -> Self {
        Self { ngram_min: 2, ngram_max: 4, window: 8192, matched: 0 }
    }
}

impl PromptLookup {
    /// Sets the minimum and maximum match length in tokens.
    #[must_use]
    pub fn ngram(mut self, min: usize, max: usize) -> Self {
        self.ngram_min = min.max(1);
        self.ngram_max = max.max(self.ngram_min);
        self
    }

    /// Sets the number of last tokens to search.
    #[must_use]
    pub fn window(mut self, tokens: usize) -> Self {
        self.window = tokens;
        self
    }

    /// Length of the longest common suffix of `a` and `b`, up to `ngram_max`.
    fn agreement(&self, a: &[TokenId], b: &[TokenId]) -> usize {
        let equal = a.iter().rev().zip(b.iter().rev()).take(self.ngram_max);
        equal.take_while(|(a, b)| a == b).count()
    }
}

impl Proposer for PromptLookup {
    fn source(&self) -> DraftSource {
        DraftSource::PromptLookup
    }

    fn matched(&self) -> usize {
        self.matched
    }

    fn propose(&mut self, _id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        let tokens = &tokens[tokens.len().saturating_sub(self.window)..];
        let (mut best, mut from) = (0, 0);
        let Some(last) = tokens.last() else { return };
        for end in (self.ngram_min..tokens.len()).rev() {
            if tokens[end - 1] != *last {
                continue;
            }
            let agreement = self.agreement(&tokens[..end], tokens);
            if agreement > best {
                (best, from) = (agreement, end);
                if best == self.ngram_max {
                    break;
                }
            }
        }
        if best < self.ngram_min {
            return;
        }
        self.matched = best;
        // A match near the end continues into the drafts themselves, so that a repetition continues.
        for i in from..from + max {
            let draft = tokens.get(i).or_else(|| drafts.get(i - tokens.len())).copied();
            drafts.extend(draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(lookup: PromptLookup, tokens: &[TokenId], max: usize) -> Vec<TokenId> {
        let (mut lookup, mut drafts) = (lookup, Vec::new());
        lookup.propose(RequestId(0), tokens, max, &mut drafts);
        drafts
    }

    #[test]
    fn the_longest_agreement_counts_and_then_the_last() {
        let lookup = PromptLookup::default();
        assert_eq!(propose(lookup, &[1, 2, 3, 4, 5, 9, 2, 3], 2), [4, 5]);
        let twice = [2, 3, 7, 0, 2, 3, 8, 0, 2, 3];
        assert_eq!(propose(lookup, &twice, 1), [8], "the last of two places");
        let longer = [1, 2, 3, 7, 0, 2, 3, 8, 1, 2, 3];
        assert_eq!(propose(lookup, &longer, 1), [7], "three tokens agree before two");
        assert_eq!(propose(lookup.ngram(2, 2), &longer, 1), [8], "two are compared");
    }

    #[test]
    fn without_agreement_there_is_no_draft() {
        let lookup = PromptLookup::default();
        for tokens in [&[][..], &[1], &[1, 1], &[1, 2, 3, 4], &[1, 5, 2, 5]] {
            assert_eq!(propose(lookup, tokens, 4), [0; 0], "{tokens:?}");
        }
        assert_eq!(propose(lookup.ngram(1, 4), &[1, 5, 2, 5], 1), [2]);
        assert_eq!(propose(lookup.window(4), &[1, 2, 3, 9, 8, 1, 2], 4), [0; 0], "outside the window");
        assert_eq!(propose(lookup.window(7), &[1, 2, 3, 9, 8, 1, 2], 2), [3, 9]);
    }

    #[test]
    fn a_repetition_is_continued() {
        assert_eq!(propose(PromptLookup::default(), &[7, 7, 7], 5), [7; 5]);
        assert_eq!(propose(PromptLookup::default(), &[1, 2, 1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
    }
}
