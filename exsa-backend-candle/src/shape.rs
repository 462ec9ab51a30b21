//! Numbers and choices that kernels, the KV cache, layers and models share.

use std::ops::Range;

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

/// Heads of queries, of keys and values, and what their scores go through.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    /// Heads of queries, a multiple of `n_head_kv`.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scores go through `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Tokens that each token sees, itself included.
    pub window: Option<usize>,
}

impl Heads {
    /// Positions that the token at `position` sees.
    pub fn seen(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        end.saturating_sub(self.window.unwrap_or(end))..end
    }
}

/// Pairing of the `n` rotary dimensions of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopePairs {
    /// `2i` and `2i + 1`, as in the original RoPE.
    Interleaved,
    /// `i` and `i + n / 2`, as in GPT-NeoX.
    Neox,
}

/// Activation of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in the approximation by tanh (Hendrycks and Gimpel, arXiv:1606.08415).
    GeluTanh,
    /// `x * sigmoid(1.702 x)` of values up to 7, on `up + 1` with `up` clamped to 7, as in gpt-oss (2025).
    ClampedSwiglu,
}
