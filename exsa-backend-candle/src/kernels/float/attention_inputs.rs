//! Inputs of attention: spans of queries, and the blocks of keys and values that they see.

use super::kv_layout::HeadLayout;
use crate::shape::{BLOCK_TOKENS, BlockId};
use exsa_core::backend::Interrupt;
use exsa_models::Heads;
use std::ops::Range;

/// Keys whose scores are computed before they become weights.
pub(crate) const CHUNK: usize = 128;

/// Keys after which the running result is set aside.
pub(crate) const SPLIT: usize = 512;

const _: () = assert!(CHUNK.is_multiple_of(BLOCK_TOKENS) && SPLIT.is_multiple_of(CHUNK));

/// Consecutive tokens of a sequence whose attention is computed.
#[derive(Clone, Debug)]
pub(crate) struct AttentionSpan {
    /// Row of the first token's queries, and of its result.
    pub row: usize,
    /// Number of tokens.
    pub len: usize,
    /// Position of the first token.
    pub position: usize,
    /// Blocks of the sequence, as a range of [`Inputs::blocks`].
    pub blocks: Range<usize>,
}

/// Queries of a batch, and the keys and values of its sequences.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Queries; those of a row begin at `row * stride`: `[n_head][head_dim]`.
    pub queries: &'a [f32],
    /// From one row of queries to the next.
    pub stride: usize,
    /// All spans.
    pub spans: &'a [AttentionSpan],
    /// Blocks of all spans.
    pub blocks: &'a [BlockId],
    /// Keys and values of the layer: `[blocks][n_head_kv]`, each as `layout` says.
    pub cache: &'a [u8],
    /// How they lie.
    pub layout: HeadLayout,
    /// The heads.
    pub heads: &'a Heads,
    /// Ends it early.
    pub interrupt: &'a Interrupt,
}

impl Inputs<'_> {
    /// Keys and values of head `head` in block `block` of a span.
    #[inline(always)]
    pub fn place(&self, span: &AttentionSpan, block: usize, head: usize) -> *const u8 {
        let id = self.blocks[span.blocks.start + block] as usize;
        let start = (id * self.heads.n_head_kv + head) * self.layout.bytes;
        self.cache[start..start + self.layout.bytes].as_ptr()
    }
}
