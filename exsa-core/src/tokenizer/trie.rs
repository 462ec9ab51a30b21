//! Texts by their bytes, for finding the longest one that a text starts with.

use crate::token::TokenId;
use hashbrown::HashMap;

/// A trie over bytes.
#[derive(Default)]
pub(super) struct Trie {
    /// Child of a node by `node << 8 | byte`; the root is node 0.
    children: HashMap<u64, u32>,
    /// The text that ends at each node.
    ids: Vec<Option<TokenId>>,
    /// Whether any text starts with this byte.
    first: Vec<bool>,
}

impl Trie {
    /// A trie of `texts`, empty ones apart; of equal ones the last counts.
    pub(super) fn new<'a>(texts: impl Iterator<Item = (TokenId, &'a str)>) -> Self {
        let mut trie = Self { children: HashMap::new(), ids: vec![None], first: vec![false; 256] };
        for (id, text) in texts {
            let Some(first) = text.as_bytes().first() else { continue };
            trie.first[usize::from(*first)] = true;
            let node = text.bytes().fold(0, |node, byte| {
                let next = trie.ids.len() as u32;
                let child = *trie.children.entry(edge(node, byte)).or_insert(next);
                if child == next {
                    trie.ids.push(None);
                }
                child
            });
            trie.ids[node as usize] = Some(id);
        }
        trie
    }

    /// Whether there is no text.
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether any text starts with `byte`.
    pub(super) fn starts_with(&self, byte: u8) -> bool {
        self.first.get(usize::from(byte)).copied().unwrap_or(false)
    }

    /// The texts that `bytes` starts with, shortest first, with their lengths.
    pub(super) fn prefixes(&self, bytes: &[u8]) -> impl Iterator<Item = (usize, TokenId)> {
        let mut node = 0;
        bytes
            .iter()
            .enumerate()
            .map_while(move |(i, byte)| {
                node = *self.children.get(&edge(node, *byte))?;
                Some(self.ids.get(node as usize).copied().flatten().map(|id| (i + 1, id)))
            })
            .flatten()
    }
}

fn edge(node: u32, byte: u8) -> u64 {
    u64::from(node) << 8 | u64::from(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_a_text() {
        let trie = Trie::new([(1, "a"), (2, "abc"), (3, ""), (4, "bc"), (5, "a")].into_iter());
        assert_eq!(trie.prefixes(b"abcd").collect::<Vec<_>>(), [(1, 5), (3, 2)]);
        assert_eq!(trie.prefixes(b"cba").count(), 0);
        assert!(trie.starts_with(b'b') && !trie.starts_with(b'c') && !trie.is_empty());
        assert!(Trie::default().is_empty());
    }
}
