//! SentencePiece's normalization of characters: replacements of prefixes, found by a double array whose nodes
//! are combined by XOR (Kanda, 2018).

use super::error::TokenizerError;
use super::keys;

/// Replacements.
#[derive(Debug, Default)]
pub(super) struct Charsmap {
    /// Nodes. Bits 0 to 7 are the byte that leads to the node, bit 8 says that a text ends there, and bits 10
    /// to 30, shifted by 8 if bit 9 is set, are the offset of its children.
    nodes: Vec<u32>,
    /// Replacements, each with a NUL behind it.
    texts: Vec<u8>,
}

impl Charsmap {
    /// Reads a map: the length of the nodes in bytes, the nodes, and the replacements. An empty one replaces
    /// nothing.
    ///
    /// # Errors
    ///
    /// The map is shorter than it says, or its last replacement has no end.
    pub(super) fn new(map: &[u8]) -> Result<Self, TokenizerError> {
        if map.is_empty() {
            return Ok(Self::default());
        }
        let problem = |problem| TokenizerError::Charsmap { key: keys::CHARSMAP, bytes: map.len(), problem };
        let (len, rest) = map.split_at_checked(4).ok_or_else(|| problem("has no length"))?;
        let len = u32::from_le_bytes(len.try_into().unwrap_or_default()) as usize;
        let (nodes, texts) = rest.split_at_checked(len).ok_or_else(|| problem("is cut off in its nodes"))?;
        if texts.last() != Some(&0) {
            return Err(problem("ends within a replacement"));
        }
        let node = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
        Ok(Self { nodes: nodes.chunks_exact(4).map(node).collect(), texts: texts.to_vec() })
    }

    /// The replacement of the longest prefix of `text` that has one, and the length of that prefix.
    pub(super) fn replacement(&self, text: &[u8]) -> Option<(&[u8], usize)> {
        let base = |node: u32| (node >> 10) << ((node & 1 << 9) >> 6);
        let mut found = None;
        let mut at = base(*self.nodes.first()?);
        for (i, byte) in text.iter().enumerate().take_while(|(_, byte)| **byte != 0) {
            at ^= u32::from(*byte);
            let Some(node) = self.nodes.get(at as usize).copied() else { break };
            if node & (1 << 31 | 0xff) != u32::from(*byte) {
                break;
            }
            at ^= base(node);
            if node >> 8 & 1 == 1
                && let Some(leaf) = self.nodes.get(at as usize)
            {
                found = Some((leaf & !(1 << 31), i + 1));
            }
        }
        let (start, len) = found?;
        let text = self.texts.get(start as usize..)?;
        Some((text.split(|b| *b == 0).next().unwrap_or_default(), len))
    }
}
