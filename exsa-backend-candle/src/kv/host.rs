//! Keys and values in host memory, laid out for the kernels.

use super::BlockCopy;
use super::store::KvShape;
use crate::kernels::float::kv_layout::{HeadLayout, Part};
use crate::kernels::memory::pages::Pages;
use crate::shape::{BLOCK_TOKENS, BlockId};
use exsa_core::backend::read_error;
use exsa_core::error::{KvError, LoadError};
use std::io::{Read, Write};

/// Keys and values of all blocks: `[n_blocks][n_head_kv]` for each layer, each as [`HeadLayout`] says.
pub(crate) struct HostKv {
    layers: Vec<Pages>,
    layout: HeadLayout,
    n_head_kv: usize,
}

impl HostKv {
    /// Memory for `n_blocks` blocks.
    pub fn new(shape: &KvShape, n_blocks: usize) -> Result<Self, LoadError> {
        let layout = shape.layout();
        let bytes = n_blocks.checked_mul(shape.n_head_kv * layout.bytes);
        let memory = |_| LoadError::Memory {
            what: "the KV cache",
            needed: shape.block_bytes().unwrap_or(u64::MAX).saturating_mul(n_blocks as u64),
            available: 0,
        };
        let zeroed = || Pages::zeroed(bytes.unwrap_or(usize::MAX)).map_err(memory);
        let layers = (0..shape.n_layer).map(|_| zeroed()).collect::<Result<_, _>>()?;
        Ok(Self { layers, layout, n_head_kv: shape.n_head_kv })
    }

    /// How the part of a block that belongs to one head lies.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// The blocks of layer `index`.
    pub fn layer_mut(&mut self, index: usize) -> &mut [u8] {
        self.layers[index].as_mut_slice()
    }

    /// Copies a block to another, in every layer.
    pub fn copy(&mut self, copy: &BlockCopy) {
        let bytes = self.n_head_kv * self.layout.bytes;
        for layer in &mut self.layers {
            let from = copy.from as usize * bytes;
            layer.as_mut_slice().copy_within(from..from + bytes, copy.to as usize * bytes);
        }
    }

    /// Writes the first `len` tokens in `blocks`: [`KvShape::saved_bytes`].
    pub fn save(&self, blocks: &[BlockId], len: usize, to: &mut dyn Write) -> Result<(), KvError> {
        let mut bytes = Vec::new();
        for layer in &self.layers {
            for part in [Part::Keys, Part::Values] {
                for (block, tokens) in parts(blocks, len) {
                    bytes.clear();
                    self.visit(block, tokens, part, |at, len| {
                        bytes.extend_from_slice(&layer.as_slice()[at..at + len]);
                    });
                    to.write_all(&bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote into `blocks`.
    pub fn restore(&mut self, blocks: &[BlockId], len: usize, from: &mut dyn Read) -> Result<(), KvError> {
        let mut bytes = Vec::new();
        for layer in 0..self.layers.len() {
            for part in [Part::Keys, Part::Values] {
                for (block, tokens) in parts(blocks, len) {
                    bytes.resize(tokens * self.n_head_kv * self.layout.saved_bytes(), 0);
                    from.read_exact(&mut bytes).map_err(read_error)?;
                    let (layout, n_head_kv) = (self.layout, self.n_head_kv);
                    let to = self.layers[layer].as_mut_slice();
                    let mut rest = bytes.as_slice();
                    visit(&layout, n_head_kv, block, tokens, part, |at, len| {
                        let (first, tail) = rest.split_at(len);
                        to[at..at + len].copy_from_slice(first);
                        rest = tail;
                    });
                }
            }
        }
        Ok(())
    }

    fn visit(&self, block: BlockId, tokens: usize, part: Part, visitor: impl FnMut(usize, usize)) {
        visit(&self.layout, self.n_head_kv, block, tokens, part, visitor);
    }
}

/// The bytes of the first tokens of a block, in the order in which they are saved: `[tokens][n_head_kv]`,
/// each as [`HeadLayout::visit`] says.
fn visit(
    layout: &HeadLayout,
    n_head_kv: usize,
    block: BlockId,
    tokens: usize,
    part: Part,
    mut visitor: impl FnMut(usize, usize),
) {
    for token in 0..tokens {
        for head in 0..n_head_kv {
            let start = (block as usize * n_head_kv + head) * layout.bytes;
            layout.visit(part, token, |at, len| visitor(start + at, len));
        }
    }
}

/// Each block that holds some of the first `len` tokens, with their number.
fn parts(blocks: &[BlockId], len: usize) -> impl Iterator<Item = (BlockId, usize)> {
    let starts = (0..len).step_by(BLOCK_TOKENS);
    blocks.iter().zip(starts).map(move |(&block, position)| (block, BLOCK_TOKENS.min(len - position)))
}
