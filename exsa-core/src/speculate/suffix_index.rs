//! Drafts from an index of all suffixes of the request's own tokens.

use super::automaton::Automaton;
use super::shared_index::{Place, SharedIndexes};
use super::{DraftSource, Namespace, Proposer};
use crate::token::{RequestId, TokenId};
use hashbrown::HashMap;

/// Suffix decoding (Oliaro et al. 2024) on a request's own prompt and answer: finds the longest suffix, of
/// any length, that occurred before, and proposes the tokens that followed it most often.
///
/// Matches have at least `matched_min` tokens, and a run of drafts is no longer than its match. The index is
/// a suffix automaton that grows with the request; a step costs a few microseconds. A prompt is indexed in
/// parts of 1,024 tokens per step; no drafts are proposed before the index has caught up. Memory is bounded:
/// an index takes about 160 bytes per token and holds at most `tokens_max` tokens, after which it is rebuilt
/// from the latest half of them. All indexes together take at most `bytes_max`; further requests then have no
/// index.
///
/// With [`shared`](Self::shared), the texts of ended requests are searched too: those of the same adapter and
/// [`cache_salt`](crate::Request::cache_salt), as in the prefix cache.
#[derive(Debug)]
pub struct SuffixIndex {
    matched_min: usize,
    tokens_max: usize,
    bytes_max: usize,
    indexes: HashMap<RequestId, Index>,
    /// Indexes of requests that have ended, whose memory is reused.
    spare: Vec<Automaton>,
    /// Bytes of all indexes.
    bytes: usize,
    matched: usize,
    shared: Option<SharedIndexes>,
}

/// Maximum tokens indexed per call.
const CATCH_UP: usize = 1024;
/// Tokens before a change that are indexed again, as context for the tokens after it.
const CONTEXT: usize = 32;
/// Separator after rewound tokens, which is outside of every vocabulary.
const SEPARATOR: TokenId = TokenId::MAX;
/// Minimum of [`SuffixIndex::tokens_max`].
const TOKENS_MIN: usize = 4 * CONTEXT;

/// The index of one request.
#[derive(Debug, Default)]
struct Index {
    automaton: Automaton,
    /// Number of indexed tokens of the request.
    indexed: usize,
    /// With shared indexes: the namespace, the position in its index, and the tokens to add at the end of the
    /// request.
    namespace: Namespace,
    place: Place,
    tokens: Vec<TokenId>,
}

impl Default for SuffixIndex {
    /// Matches of at least 2 tokens, at most 8,192 tokens per request and 64 MiB for all.
    fn default() -> Self {
        Self {
            matched_min: 2,
            tokens_max: 8192,
            bytes_max: 64 << 20,
            indexes: HashMap::new(),
            spare: Vec::new(),
            bytes: 0,
            matched: 0,
            shared: None,
        }
    }
}

impl SuffixIndex {
    /// Sets the minimum length of a match in tokens, at least 1.
    #[must_use]
    pub fn matched_min(mut self, tokens: usize) -> Self {
        self.matched_min = tokens.max(1);
        self
    }

    /// Sets the maximum tokens per index, at least 128.
    #[must_use]
    pub fn tokens_max(mut self, tokens: usize) -> Self {
        self.tokens_max = tokens.max(TOKENS_MIN);
        self
    }

    /// Searches the texts of ended requests too: the last 2,048 tokens of each, prompt and answer, by
    /// namespace (adapter and `cache_salt`). The indexes of all namespaces take up to `bytes`, about 160
    /// bytes per token; the least recently used is evicted first.
    ///
    /// The response time then depends on the texts of other requests in the namespace, and could be used to
    /// guess them: give each tenant its own salt.
    #[must_use]
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared = Some(SharedIndexes::new(bytes));
        self
    }

    /// Sets the maximum bytes of all indexes of running requests. Existing indexes continue to grow.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }
}

impl Index {
    /// Indexes further tokens. Returns whether the index has caught up.
    fn catch_up(&mut self, tokens: &[TokenId], tokens_max: usize) -> bool {
        let end = tokens.len().min(self.indexed.saturating_add(CATCH_UP));
        while self.indexed < end {
            if self.automaton.len() >= tokens_max {
                self.automaton.clear();
                self.indexed = self.indexed.saturating_sub(tokens_max / 2);
                return false;
            }
            self.automaton.push(tokens[self.indexed]);
            self.indexed += 1;
        }
        end == tokens.len()
    }
}

impl Proposer for SuffixIndex {
    fn source(&self) -> DraftSource {
        DraftSource::SuffixIndex
    }

    fn matched(&self) -> usize {
        self.matched
    }

    fn propose(&mut self, id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        self.propose_in(id, &Namespace::default(), tokens, max, drafts);
    }

    fn propose_in(
        &mut self,
        id: RequestId,
        namespace: &Namespace,
        tokens: &[TokenId],
        max: usize,
        drafts: &mut Vec<TokenId>,
    ) {
        if !self.indexes.contains_key(&id) {
            if self.bytes >= self.bytes_max {
                return;
            }
            let automaton = self.spare.pop().unwrap_or_else(|| {
                let automaton = Automaton::default();
                self.bytes += automaton.bytes();
                automaton
            });
            let namespace = if self.shared.is_some() { namespace.clone() } else { Namespace::default() };
            self.indexes.insert(id, Index { automaton, namespace, ..Index::default() });
        }
        let Some(index) = self.indexes.get_mut(&id) else { return };
        let before = index.automaton.bytes();
        let caught_up = index.catch_up(tokens, self.tokens_max);
        self.bytes = (self.bytes + index.automaton.bytes()).saturating_sub(before);
        self.matched = if caught_up { index.automaton.matched() } else { 0 };
        if let Some(shared) = &mut self.shared {
            // At the end of the request, its latest tokens are added.
            index.tokens.clear();
            index.tokens.extend_from_slice(tokens);
            let matched = shared.read(&index.namespace, &mut index.place, tokens);
            if matched > self.matched {
                self.matched = matched;
                return shared.propose(
                    &index.namespace,
                    &index.place,
                    self.matched_min,
                    max.min(matched),
                    drafts,
                );
            }
        }
        index.automaton.propose(self.matched_min, max.min(self.matched), drafts);
    }

    fn changed(&mut self, id: RequestId, kept: usize) {
        let Some(index) = self.indexes.get_mut(&id).filter(|index| index.indexed > kept) else { return };
        // An automaton cannot shrink. Rewound tokens may still predict what follows.
        index.automaton.push(SEPARATOR);
        index.indexed = kept.saturating_sub(CONTEXT);
    }

    fn finished(&mut self, id: RequestId) {
        let Some(Index { mut automaton, namespace, tokens, .. }) = self.indexes.remove(&id) else { return };
        if let Some(shared) = &mut self.shared {
            shared.add(&namespace, &tokens);
        }
        // Spare memory is kept as long as it fits the limit and does not exceed that of running requests.
        if self.spare.len() <= self.indexes.len() && self.bytes < self.bytes_max {
            automaton.clear();
            self.spare.push(automaton);
        } else {
            self.bytes = self.bytes.saturating_sub(automaton.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(index: &mut SuffixIndex, tokens: &[TokenId], max: usize) -> Vec<TokenId> {
        let mut drafts = Vec::new();
        index.propose(RequestId(0), tokens, max, &mut drafts);
        drafts
    }

    #[test]
    fn a_draft_is_no_longer_than_its_match() {
        let mut index = SuffixIndex::default();
        let text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3];
        assert_eq!(propose(&mut index, &text, 9), [4, 5]);
        assert_eq!(index.matched(), 2);
        let longer = [&text[..], &[4]].concat();
        assert_eq!(propose(&mut index, &longer, 9), [5, 6, 7], "the index grows");
        assert_eq!(propose(&mut index, &longer, 1), [5]);
        let mut strict = SuffixIndex::default().matched_min(3);
        assert_eq!(propose(&mut strict, &text, 9), [0; 0]);
    }

    #[test]
    fn long_prompts_are_indexed_in_parts() {
        let mut index = SuffixIndex::default();
        let mut tokens: Vec<TokenId> = (0..2500).collect();
        tokens.extend([10, 11, 12]);
        assert_eq!(propose(&mut index, &tokens, 4), [0; 0]);
        assert_eq!(propose(&mut index, &tokens, 4), [0; 0]);
        assert_eq!(propose(&mut index, &tokens, 4), [13, 14, 15]);
    }

    #[test]
    fn tokens_taken_back_are_no_context() {
        let mut index = SuffixIndex::default();
        let tokens = [1, 2, 3, 9, 9, 9, 1, 2, 5, 6, 7];
        propose(&mut index, &tokens, 4);
        index.changed(RequestId(0), 8);
        // Known is 1, 2, 3, 9, 9, 9, 1, 2 now, and then another token.
        assert!(!propose(&mut index, &tokens[..8], 2).contains(&SEPARATOR));
        let mut other = tokens[..8].to_vec();
        other.extend([3, 9]);
        assert_eq!(propose(&mut index, &other, 2), [9, 9]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut index = SuffixIndex::default().tokens_max(1000);
        let mut random = 1_u64;
        let mut tokens: Vec<TokenId> = Vec::new();
        let mut most = 0;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            tokens.push((random >> 33) as TokenId % 50);
            propose(&mut index, &tokens, 4);
            most = most.max(index.bytes);
        }
        assert!(most < 1000 * 300 && most > 0, "{most} bytes for 1,000 tokens");
        index.finished(RequestId(0));
        assert!(index.indexes.is_empty());

        let mut full = SuffixIndex::default().bytes_max(1);
        assert_eq!(propose(&mut full, &[1, 2, 3, 1, 2], 1), [3], "the first request is indexed");
        let mut drafts = Vec::new();
        full.propose(RequestId(1), &[1, 2, 3, 1, 2], 1, &mut drafts);
        assert!(drafts.is_empty(), "there is no room for another");
        full.finished(RequestId(0));
        full.propose(RequestId(1), &[1, 2, 3, 1, 2], 1, &mut drafts);
        assert_eq!((drafts.as_slice(), full.indexes.len()), (&[3][..], 1));
    }
}
