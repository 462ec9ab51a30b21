//! Texts by their bytes: which ones a text starts with, and which one it could be the start of.

use crate::token::TokenId;
use hashbrown::HashMap;

/// A trie over bytes.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    /// Child of a node by `node << 8 | byte`; the root is node 0.
    children: HashMap<u64, u32>,
    /// The text that ends at each node.
    ids: Vec<Option<TokenId>>,
    /// Whether each node has a child.
    inner: Vec<bool>,
    /// Whether any text starts with this byte.
    first: Vec<bool>,
}

impl Trie {
    /// A trie of `texts`, empty ones apart; of equal ones the last counts.
    pub(crate) fn new(texts: impl Iterator<Item = (TokenId, impl AsRef<[u8]>)>) -> Self {
        let (children, first) = (HashMap::new(), vec![false; 256]);
        let mut trie = Self { children, ids: vec![None], inner: vec![false], first };
        for (id, text) in texts {
            let text = text.as_ref();
            let Some(first) = text.first() else { continue };
            trie.first[usize::from(*first)] = true;
            let node = text.iter().fold(0, |node, byte| {
                let next = trie.ids.len() as u32;
                let child = *trie.children.entry(edge(node, *byte)).or_insert(next);
                if child == next {
                    trie.ids.push(None);
                    trie.inner.push(false);
                    trie.inner[node as usize] = true;
                }
                child
            });
            trie.ids[node as usize] = Some(id);
        }
        trie
    }

    /// Whether there is no text.
    pub(crate) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether any text starts with `byte`.
    pub(crate) fn starts_with(&self, byte: u8) -> bool {
        self.first.get(usize::from(byte)).copied().unwrap_or(false)
    }

    /// The texts that `bytes` starts with, shortest first, with their lengths.
    pub(crate) fn prefixes(&self, bytes: &[u8]) -> impl Iterator<Item = (usize, TokenId)> {
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

    /// Whether `bytes` are the start of a longer text.
    pub(crate) fn is_start(&self, bytes: impl IntoIterator<Item = u8>) -> bool {
        let mut bytes = bytes.into_iter();
        let node = bytes.try_fold(0, |node, byte| self.children.get(&edge(node, byte)).copied());
        node.is_some_and(|node| self.inner.get(node as usize).copied().unwrap_or(false))
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
        assert!(Trie::default().is_empty() && !Trie::default().is_start(*b"a"));
        let starts: Vec<&str> =
            ["", "a", "ab", "abc", "b", "c"].into_iter().filter(|s| trie.is_start(s.bytes())).collect();
        assert_eq!(starts, ["", "a", "ab", "b"]);
    }
}
