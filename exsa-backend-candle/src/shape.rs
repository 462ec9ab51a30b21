//! Blocks of the KV cache, which kernels and executors share.

/// Tokens in a block.
pub(crate) const BLOCK_TOKENS: usize = 32;

/// Index of a block in the pool.
pub(crate) type BlockId = u32;

/// Slot of one token in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Its block.
    pub block: BlockId,
    /// Its place in the block.
    pub token: usize,
}
