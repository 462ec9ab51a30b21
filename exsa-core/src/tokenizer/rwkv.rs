//! RWKV's tokenizer: the longest token at each place, from left to right. Tokens are bytes, written with
//! escapes: `\\t`, `\\n`, `\\r`, `\\x0a`, and any other character behind a backslash.

use super::tokens::Tokens;
use super::trie::Trie;
use crate::token::TokenId;

/// The algorithm's tables.
pub(super) struct Rwkv {
    trie: Trie,
    /// A byte that starts no token.
    unk: Option<TokenId>,
}

impl Rwkv {
    pub(super) fn new(tokens: &Tokens, unk: Option<TokenId>) -> Self {
        let texts = tokens.iter().filter(|(_, _, kind)| !kind.is_hidden());
        Self { trie: Trie::new(texts.map(|(id, text, _)| (id, unescape(text)))), unk }
    }

    /// Appends the ids of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let longest = self.trie.prefixes(rest).last();
            out.extend(longest.map(|(_, id)| id).or(self.unk));
            rest = rest.get(longest.map_or(1, |(len, _)| len)..).unwrap_or_default();
        }
    }
}

/// The bytes of a token.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b't') => bytes.push(b'\t'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'x') => {
                let digit = |b: u8| char::from(b).to_digit(16).unwrap_or(0) as u8;
                if let (Some(high), Some(low)) = (rest.next(), rest.next()) {
                    bytes.push(digit(high) << 4 | digit(low));
                }
            }
            other => bytes.extend(other),
        }
    }
    bytes
}
