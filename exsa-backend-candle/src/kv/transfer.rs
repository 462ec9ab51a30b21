//! KV of one sequence, out of the blocks into a stream and back.

use super::store::KvStore;
use crate::error::CandleError;
use crate::shape::{BLOCK_TOKENS, BlockId};
use crate::tensor_values as values;
use candle_core::{DType, Device, Tensor};
use exsa_core::backend::read_error;
use exsa_core::error::KvError;
use half::f16;
use std::io::{Read, Write};

impl KvStore {
    /// Writes the first `len` tokens in `blocks`: [`KvShape::saved_bytes`](super::KvShape::saved_bytes).
    pub fn save(&self, blocks: &[BlockId], len: usize, to: &mut dyn Write) -> Result<(), KvError> {
        for layer in self.layers() {
            for tensor in [&layer.keys, &layer.values] {
                for (slot, tokens) in parts(blocks, len) {
                    to.write_all(&bytes_of(&tensor.narrow(0, slot, tokens).kv()?)?)?;
                }
            }
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote into `blocks`.
    pub fn restore(&self, blocks: &[BlockId], len: usize, from: &mut dyn Read) -> Result<(), KvError> {
        let mut bytes = Vec::new();
        for layer in self.layers() {
            for tensor in [&layer.keys, &layer.values] {
                for (slot, tokens) in parts(blocks, len) {
                    let (_, n_head_kv, head_dim) = tensor.dims3().kv()?;
                    bytes.resize(tokens * n_head_kv * head_dim * tensor.dtype().size_in_bytes(), 0);
                    from.read_exact(&mut bytes).map_err(read_error)?;
                    let part = tensor_of(&bytes, (tokens, n_head_kv, head_dim), tensor)?;
                    tensor.slice_set(&part, 0, slot).kv()?;
                }
            }
        }
        Ok(())
    }
}

/// Slot and number of tokens of each block that holds some of the first `len` tokens.
fn parts(blocks: &[BlockId], len: usize) -> impl Iterator<Item = (usize, usize)> {
    blocks
        .iter()
        .zip((0..len).step_by(BLOCK_TOKENS))
        .map(move |(&block, position)| (block as usize * BLOCK_TOKENS, BLOCK_TOKENS.min(len - position)))
}

fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, KvError> {
    let tensor = tensor.to_device(&Device::Cpu).kv()?;
    match tensor.dtype() {
        DType::F16 => {
            values::read(&tensor, |v: &[f16]| v.iter().flat_map(|v| v.to_le_bytes()).collect()).kv()
        }
        _ => values::read(&tensor, |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect()).kv(),
    }
}

fn tensor_of(bytes: &[u8], shape: (usize, usize, usize), like: &Tensor) -> Result<Tensor, KvError> {
    match like.dtype() {
        DType::F16 => {
            let values: Vec<f16> = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect();
            Tensor::from_vec(values, shape, like.device()).kv()
        }
        _ => {
            let values: Vec<f32> =
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Tensor::from_vec(values, shape, like.device()).kv()
        }
    }
}
