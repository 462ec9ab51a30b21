//! Memory of passes.

use crate::kernels::memory::buffer::resize;
use crate::layers::linear::Activations;
use crate::layers::rope::HostRopeTable;
use exsa_models::EncoderConfig;
use std::ops::Range;

/// Values of a pass, kept between passes. Their lengths are those of the largest one.
#[derive(Default)]
pub(super) struct Workspace {
    /// Hidden states, `[tokens, n_embd]`.
    pub x: Vec<f32>,
    /// Inputs of attention and MLP, `[tokens, n_embd]`.
    pub input: Vec<f32>,
    /// Outputs of attention and MLP, `[tokens, n_embd]`.
    pub y: Vec<f32>,
    /// Queries, keys and values by one matrix, `[tokens, width + 2 * width_kv]`.
    pub qkv: Vec<f32>,
    /// `[tokens, n_head * head_dim]`.
    pub queries: Vec<f32>,
    /// `[tokens, n_head_kv * head_dim]`.
    pub keys: Vec<f32>,
    /// As the keys.
    pub values: Vec<f32>,
    /// Outputs of the heads, in the layout of the queries.
    pub heads: Vec<f32>,
    /// `[tokens, 2 * n_ff]` at most.
    pub gate: Vec<f32>,
    /// `[tokens, n_ff]`.
    pub up: Vec<f32>,
    /// Tokens of the text of each token.
    pub texts: Vec<Range<u32>>,
    /// Positions of the tokens.
    pub positions: Vec<u32>,
    /// RoPE of layers without a window, and of those with one.
    pub ropes: [HostRopeTable; 2],
    /// Inputs of products in the forms that weights want.
    pub activations: Activations,
}

impl Workspace {
    /// Makes room for `tokens` tokens.
    pub fn reserve(&mut self, config: &EncoderConfig, tokens: usize) {
        let width = config.n_head * config.head_dim;
        let width_kv = config.n_head_kv * config.head_dim;
        for (buffer, row) in [
            (&mut self.x, config.n_embd),
            (&mut self.input, config.n_embd),
            (&mut self.y, config.n_embd),
            (&mut self.qkv, width + 2 * width_kv),
            (&mut self.queries, width),
            (&mut self.keys, width_kv),
            (&mut self.values, width_kv),
            (&mut self.heads, width),
            (&mut self.gate, 2 * config.n_ff),
            (&mut self.up, config.n_ff),
        ] {
            if buffer.len() < tokens * row {
                resize(buffer, tokens * row);
            }
        }
    }

    /// Bytes for `tokens` tokens, without the memory of products.
    pub fn bytes(config: &EncoderConfig, tokens: usize) -> u64 {
        let width = config.n_head * config.head_dim;
        let width_kv = config.n_head_kv * config.head_dim;
        let row = 3 * config.n_embd + 3 * width + 4 * width_kv + 3 * config.n_ff + 2 * config.head_dim;
        (4 * row as u64 + 12).saturating_mul(tokens as u64)
    }
}
