//! From a token's text to its id.

use super::tokens::{TokenType, Tokens};
use crate::token::TokenId;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Ids by text. Holds no text itself: look-ups go to the [`Tokens`] that the index was made from.
pub(super) struct TextIndex {
    ids: HashTable<TokenId>,
    hasher: DefaultHashBuilder,
}

impl TextIndex {
    /// Indexes the tokens whose type satisfies `wanted`. Of tokens with one text the last is found; empty
    /// texts are never found.
    pub(super) fn new(tokens: &Tokens, wanted: impl Fn(TokenType) -> bool) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut ids = HashTable::with_capacity(tokens.len());
        for (id, text, kind) in tokens.iter() {
            if text.is_empty() || !wanted(kind) {
                continue;
            }
            let hash_of = |id: &TokenId| hasher.hash_one(tokens.text(*id).unwrap_or_default().as_bytes());
            let hash = hasher.hash_one(text.as_bytes());
            match ids.find_mut(hash, |other| tokens.text(*other) == Some(text)) {
                Some(same) => *same = id,
                None => drop(ids.insert_unique(hash, id, hash_of)),
            }
        }
        Self { ids, hasher }
    }

    /// The token with this text.
    #[inline]
    pub(super) fn get(&self, tokens: &Tokens, text: &str) -> Option<TokenId> {
        let hash = self.hasher.hash_one(text.as_bytes());
        self.ids.find(hash, |id| tokens.text(*id) == Some(text)).copied()
    }
}
