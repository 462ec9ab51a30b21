//! Keys and values on the device.

use super::plan::SessionPlan;
use super::tables::{BLOCK_TOKENS, BlockCopy, BlockId};
use crate::device::{Device, DeviceError, Stream};
use exsa_core::backend::read_error;
use exsa_core::error::KvError;
use std::io::{Read, Write};

/// Keys and values of all blocks: `[n_blocks][n_head_kv][BLOCK_TOKENS][head_dim]` for each layer, each.
#[derive(Debug)]
pub(crate) struct KvCache<D: Device> {
    /// Keys and values.
    pub layers: Vec<[D::Buffer; 2]>,
    block_bytes: u64,
    /// Bytes of a token of one head.
    head_bytes: usize,
}

impl<D: Device> KvCache<D> {
    pub fn new(device: &D, plan: &SessionPlan, head_dim: usize) -> Result<Self, DeviceError> {
        let bytes = plan.layer_bytes();
        let layer = || Ok([device.allocate(bytes)?, device.allocate(bytes)?]);
        let layers = (0..plan.n_layer).map(|_| layer()).collect::<Result<_, DeviceError>>()?;
        Ok(Self { layers, block_bytes: plan.block_bytes, head_bytes: head_dim * plan.element.bytes() })
    }

    /// Copies a block to another, in every layer.
    pub fn copy(&self, copy: BlockCopy, stream: &mut D::Stream) -> Result<(), DeviceError> {
        let at = |block: BlockId| u64::from(block) * self.block_bytes;
        for buffer in self.layers.iter().flatten() {
            stream.copy((buffer, at(copy.from)), (buffer, at(copy.to)), self.block_bytes)?;
        }
        Ok(())
    }

    /// Writes whole blocks, layer by layer, keys before values, with zeros for the tokens past `len`: these
    /// may be of other sequences.
    pub fn save(
        &self,
        blocks: &[BlockId],
        len: usize,
        stream: &mut D::Stream,
        to: &mut dyn Write,
    ) -> Result<(), KvError> {
        let mut bytes = vec![0; usize::try_from(self.block_bytes).unwrap_or(0)];
        for buffer in self.layers.iter().flatten() {
            for (i, &block) in blocks.iter().enumerate() {
                stream.read(buffer, u64::from(block) * self.block_bytes, &mut bytes)?;
                let tokens = (len - (i * BLOCK_TOKENS).min(len)).min(BLOCK_TOKENS);
                for head in bytes.chunks_exact_mut(self.head_bytes * BLOCK_TOKENS) {
                    head[tokens * self.head_bytes..].fill(0);
                }
                to.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote into `blocks`.
    pub fn restore(
        &self,
        blocks: &[BlockId],
        stream: &mut D::Stream,
        from: &mut dyn Read,
    ) -> Result<(), KvError> {
        let mut bytes = vec![0; usize::try_from(self.block_bytes).unwrap_or(0)];
        for buffer in self.layers.iter().flatten() {
            for &block in blocks {
                from.read_exact(&mut bytes).map_err(read_error)?;
                stream.write(buffer, u64::from(block) * self.block_bytes, &bytes)?;
            }
        }
        Ok(())
    }
}
