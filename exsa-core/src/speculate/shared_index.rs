//! Indexes of the texts of earlier requests, one for each namespace.

use super::automaton::{Automaton, Cursor};
use crate::schedule::prefix::Namespace;
use crate::token::TokenId;
use hashbrown::HashMap;

/// Number of last tokens of an ended request that are indexed.
const TOKENS_MAX: usize = 2048;
/// Number of last tokens of a request that a new cursor reads.
const CONTEXT: usize = 32;
/// Separator between texts, which is outside of every vocabulary.
const SEPARATOR: TokenId = TokenId::MAX;

/// Texts of earlier requests by namespace, bounded in bytes; the least recently used namespace is evicted
/// first.
#[derive(Debug)]
pub(super) struct SharedIndexes {
    bytes_max: usize,
    bytes: usize,
    namespaces: HashMap<Namespace, Shared>,
    /// Counter of uses and new indexes.
    clock: u64,
}

#[derive(Debug, Default)]
struct Shared {
    automaton: Automaton,
    /// Unique among all indexes.
    id: u64,
    used: u64,
}

/// Position of a request in the index of its namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    cursor: Cursor,
    index: u64,
    /// Tokens of the request that were read.
    read: usize,
}

impl SharedIndexes {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, namespaces: HashMap::new(), clock: 0 }
    }

    /// Reads the new tokens of a request. Returns the length of its longest suffix that occurs in the
    /// namespace.
    pub(super) fn read(&mut self, namespace: &Namespace, place: &mut Place, tokens: &[TokenId]) -> usize {
        self.clock += 1;
        let Some(shared) = self.namespaces.get_mut(namespace) else { return 0 };
        shared.used = self.clock;
        let behind = tokens.len().saturating_sub(CONTEXT);
        if place.index != shared.id || place.read > tokens.len() || place.read < behind {
            *place = Place { cursor: Cursor::default(), index: shared.id, read: behind };
        }
        for token in &tokens[place.read..] {
            shared.automaton.advance(&mut place.cursor, *token);
        }
        place.read = tokens.len();
        place.cursor.matched()
    }

    /// Appends up to `max` tokens that followed the suffix of a request that was [`read`](Self::read).
    pub(super) fn propose(
        &self,
        namespace: &Namespace,
        place: &Place,
        matched_min: usize,
        max: usize,
        drafts: &mut Vec<TokenId>,
    ) {
        if let Some(shared) = self.namespaces.get(namespace) {
            shared.automaton.propose_at(place.cursor, matched_min, max, drafts);
        }
    }

    /// Adds the text of a request that has ended.
    pub(super) fn add(&mut self, namespace: &Namespace, tokens: &[TokenId]) {
        self.clock += 1;
        let new = || (namespace.clone(), Shared { id: self.clock, ..Shared::default() });
        if !self.namespaces.contains_key(namespace) {
            let (namespace, shared) = new();
            self.bytes += shared.automaton.bytes();
            self.namespaces.insert(namespace, shared);
        }
        let Some(shared) = self.namespaces.get_mut(namespace) else { return };
        shared.used = self.clock;
        let before = shared.automaton.bytes();
        for token in &tokens[tokens.len().saturating_sub(TOKENS_MAX)..] {
            shared.automaton.push(*token);
        }
        shared.automaton.push(SEPARATOR);
        self.bytes = (self.bytes + shared.automaton.bytes()).saturating_sub(before);
        while self.bytes > self.bytes_max {
            let oldest = self.namespaces.iter().min_by_key(|(_, shared)| shared.used);
            let Some(oldest) = oldest.map(|(namespace, _)| namespace.clone()) else { break };
            if let Some(shared) = self.namespaces.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(shared.automaton.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(salt: &str) -> Namespace {
        Namespace { salt: Some(salt.into()), ..Namespace::default() }
    }

    fn propose(indexes: &mut SharedIndexes, salt: &str, tokens: &[TokenId]) -> Vec<TokenId> {
        let (mut place, mut drafts) = (Place::default(), Vec::new());
        let matched = indexes.read(&namespace(salt), &mut place, tokens);
        indexes.propose(&namespace(salt), &place, 2, matched, &mut drafts);
        drafts
    }

    #[test]
    fn texts_are_known_in_their_namespace_alone() {
        let mut indexes = SharedIndexes::new(1 << 20);
        indexes.add(&namespace("ann"), &[1, 2, 3, 4, 5, 6]);
        assert_eq!(propose(&mut indexes, "ann", &[9, 2, 3]), [4, 5]);
        assert_eq!(propose(&mut indexes, "ann", &[9, 5, 6])[0], SEPARATOR, "a text ends");
        assert_eq!(propose(&mut indexes, "bob", &[9, 2, 3]), [0; 0]);
    }

    #[test]
    fn a_place_moves_with_its_request_and_the_index() {
        let mut indexes = SharedIndexes::new(1 << 20);
        indexes.add(&namespace("ann"), &[1, 2, 3, 4, 5, 6]);
        let (ann, mut place) = (namespace("ann"), Place::default());
        assert_eq!(indexes.read(&ann, &mut place, &[7, 2, 3]), 2);
        indexes.add(&ann, &[8, 2, 3, 9, 9]);
        assert_eq!(indexes.read(&ann, &mut place, &[7, 2, 3, 9]), 3);
        assert_eq!(indexes.read(&ann, &mut place, &[7, 2]), 1, "tokens were taken back");
    }

    #[test]
    fn memory_is_bounded_and_the_least_recently_used_namespace_goes() {
        let mut indexes = SharedIndexes::new(60_000);
        let text: Vec<TokenId> = (0..150).collect();
        indexes.add(&namespace("old"), &text);
        indexes.add(&namespace("used"), &text);
        for i in 0..2 {
            assert!(!propose(&mut indexes, "used", &[3, 4]).is_empty());
            indexes.add(&namespace(&format!("new {i}")), &text);
        }
        assert!(propose(&mut indexes, "old", &[3, 4]).is_empty());
        assert!(!propose(&mut indexes, "used", &[3, 4]).is_empty());
        let long: Vec<TokenId> = (0..5000).map(|i| i * i % 1009).collect();
        indexes.add(&namespace("used"), &long);
        assert!(
            indexes.bytes <= 60_000
                && indexes.namespaces.values().map(|s| s.automaton.bytes()).sum::<usize>() == indexes.bytes
        );
    }
}
