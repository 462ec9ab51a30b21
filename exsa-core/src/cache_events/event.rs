//! Changes of the cached blocks.

use crate::schedule::prefix::Namespace;
use crate::token::TokenId;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Identifies a block by its tokens, all tokens before it, the adapters and the salt.
///
/// Equal blocks have equal hashes in all engines of the same build of a program; hashes of different builds
/// are not comparable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockHash(pub u64);

impl BlockHash {
    /// The parent of first blocks in a namespace.
    fn root(namespace: &Namespace) -> Self {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        Self(hasher.finish())
    }

    fn child(self, tokens: &[TokenId]) -> Self {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        tokens.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({:016x})", self.0)
    }
}

/// A change of the cached blocks.
///
/// A block is stored as long as any sequence, running or idle, holds its KV. It is reported as stored once
/// and as removed once, however many sequences share it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheEvent {
    /// Consecutive blocks are now stored.
    Stored(StoredBlocks),
    /// Blocks that were stored are no longer stored.
    Removed(Vec<BlockHash>),
    /// Resets the state: no block is stored. The blocks currently held follow as [`Stored`](Self::Stored)
    /// events.
    Cleared,
}

/// Consecutive blocks of one sequence.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredBlocks {
    /// The block before the first; `None` at the beginning of a sequence.
    pub parent: Option<BlockHash>,
    /// The blocks; at least one.
    pub hashes: Vec<BlockHash>,
    /// The tokens of all blocks.
    pub tokens: Vec<TokenId>,
    /// Tokens per block.
    pub block_tokens: usize,
    /// Names of the adapters that computed the blocks, joined by `+`, with `*SCALE` unless that is 1; `None`
    /// for the model alone.
    pub adapter: Option<Arc<str>>,
    /// The request's [`cache_salt`](crate::Request::cache_salt).
    pub salt: Option<Arc<str>>,
}

impl StoredBlocks {
    /// The whole blocks of `tokens` after `parent`.
    pub(crate) fn new(
        parent: Option<BlockHash>,
        namespace: &Namespace,
        tokens: &[TokenId],
        block_tokens: usize,
    ) -> Self {
        let mut last = parent.unwrap_or_else(|| BlockHash::root(namespace));
        let blocks = tokens.chunks_exact(block_tokens);
        let tokens = &tokens[..tokens.len() - blocks.remainder().len()];
        let hashes = blocks.map(|block| {
            last = last.child(block);
            last
        });
        Self {
            parent,
            hashes: hashes.collect(),
            tokens: tokens.to_vec(),
            block_tokens,
            adapter: namespace.adapter_names(),
            salt: namespace.salt.clone(),
        }
    }
}

impl fmt::Debug for StoredBlocks {
    /// Omits the tokens, which are user data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredBlocks")
            .field("parent", &self.parent)
            .field("hashes", &self.hashes)
            .field("block_tokens", &self.block_tokens)
            .finish_non_exhaustive()
    }
}

impl CacheEvent {
    /// Approximate bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let list = match self {
            Self::Stored(blocks) => blocks.hashes.len() * 8 + blocks.tokens.len() * 4,
            Self::Removed(hashes) => hashes.len() * 8,
            Self::Cleared => 0,
        };
        size_of::<Self>() + list
    }
}
