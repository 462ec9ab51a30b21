//! Names of prefixes: a chain of keyed hashes over blocks of tokens.

use crate::CacheKey;
use exsa_core::TokenId;
use exsa_core::prompt_cache::{EntryId, PromptKey};
use std::fmt;

/// Tokens per block, the granularity at which prefixes of entries are found.
pub(crate) const BLOCK_TOKENS: usize = 64;

/// Prefix of a link, long enough to make collisions negligible; the tokens are compared as well.
pub(crate) type BlockName = [u8; 16];

/// Computes chains. With the host's key, names reveal nothing about tokens.
#[derive(Clone)]
pub(crate) struct Chains([u8; 32]);

/// The hash of everything up to the end of a block.
#[derive(Clone, Copy)]
pub(crate) struct Link([u8; 32]);

impl Chains {
    pub(crate) fn new(key: Option<&CacheKey>) -> Self {
        let key = key.map_or(&[0; 32], CacheKey::bytes);
        Self(blake3::derive_key("Exsa prompt cache 1: names", key))
    }

    /// The link before the first block, which depends on model, adapter and salt.
    pub(crate) fn root(&self, key: &PromptKey<'_>) -> Link {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"root").update(&key.fingerprint.0.to_le_bytes());
        for part in [key.adapter, key.salt] {
            hasher.update(&[u8::from(part.is_some())]);
            let text = part.unwrap_or_default().as_bytes();
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text);
        }
        Link(*hasher.finalize().as_bytes())
    }

    /// The links of the whole blocks of `tokens` after `root`.
    pub(crate) fn links<'a>(
        &'a self,
        root: Link,
        tokens: &'a [TokenId],
    ) -> impl Iterator<Item = Link> + use<'a> {
        let mut last = root;
        tokens.chunks_exact(BLOCK_TOKENS).map(move |block| {
            last = self.next(last, b"link", block);
            last
        })
    }

    /// The id of the entry for `tokens`, whose last whole block has the link `link`.
    pub(crate) fn entry(&self, link: Link, tokens: &[TokenId]) -> EntryId {
        let tail = &tokens[tokens.len() / BLOCK_TOKENS * BLOCK_TOKENS..];
        EntryId(self.next(link, b"end.", tail).name())
    }

    fn next(&self, link: Link, kind: &[u8; 4], tokens: &[TokenId]) -> Link {
        let mut bytes = [0; BLOCK_TOKENS * size_of::<TokenId>()];
        for (to, token) in bytes.chunks_exact_mut(size_of::<TokenId>()).zip(tokens) {
            to.copy_from_slice(&token.to_le_bytes());
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(kind).update(&link.0).update(&bytes[..size_of_val(tokens)]);
        Link(*hasher.finalize().as_bytes())
    }
}

impl Link {
    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    pub(crate) fn name(&self) -> BlockName {
        let mut name = [0; 16];
        name.copy_from_slice(&self.0[..16]);
        name
    }
}

impl fmt::Debug for Chains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chains(..)")
    }
}
