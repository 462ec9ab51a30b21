//! The tensors that keys and values lie in.

use super::BlockCopy;
use crate::kernels::float::kv_layout::{Format, HeadLayout};
use crate::shape::{BLOCK_TOKENS, BlockId};
use candle_core::{DType, Device, Result, Tensor};
use exsa_core::backend::Fingerprint;
use exsa_core::batch::Span;

/// Keys and values of all blocks: a pair of tensors `[n_blocks * BLOCK_TOKENS, n_head_kv, head_dim]` for each
/// layer.
///
/// Token `t` of a sequence lies in slot `blocks[t / BLOCK_TOKENS] * BLOCK_TOKENS + t % BLOCK_TOKENS`.
pub(crate) struct KvStore {
    layers: Vec<KvLayer>,
}

/// Keys and values of one layer.
pub(crate) struct KvLayer {
    /// Keys, `[slots, n_head_kv, head_dim]`, after RoPE.
    pub keys: Tensor,
    /// Values, `[slots, n_head_kv, head_dim]`.
    pub values: Tensor,
}

/// Rows of a batch that go to consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRun {
    /// First row of the batch.
    pub row: usize,
    /// Slot that it goes to.
    pub slot: usize,
    /// Number of rows.
    pub len: usize,
}

/// Shape and type of a [`KvStore`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvShape {
    /// Layers.
    pub n_layer: usize,
    /// Heads of keys and values in a layer.
    pub n_head_kv: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Element type.
    pub format: Format,
}

impl KvShape {
    /// How the part of a block that belongs to one head lies in host memory.
    pub fn layout(&self) -> HeadLayout {
        HeadLayout::new(self.format, self.head_dim)
    }

    /// Bytes that one block takes over all layers, `None` if that overflows. In tensors it may be a little
    /// less.
    pub fn block_bytes(&self) -> Option<u64> {
        [self.n_layer, self.n_head_kv, self.layout().bytes]
            .into_iter()
            .try_fold(1u64, |product, factor| product.checked_mul(factor as u64))
    }

    /// Bytes of the first `len` tokens of a sequence where they are saved: layer by layer, the keys and then
    /// the values of all tokens in order. Those of a token are `[n_head_kv][head_dim]`, in little-endian; of
    /// bytes with a scale, the f32 scale comes before every 32.
    pub fn saved_bytes(&self, len: usize) -> usize {
        let token = self.n_layer * 2 * self.n_head_kv * self.layout().saved_bytes();
        token.saturating_mul(len)
    }

    /// Adds the type and the shape to `fingerprint`.
    pub fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        let bits = self.format.bytes() * 8;
        for value in [bits, self.n_layer, self.n_head_kv * self.head_dim] {
            fingerprint.update(&(value as u64).to_le_bytes());
        }
    }

    /// The type of tensors that hold keys and values; there is none for [`Format::Q8`].
    fn dtype(&self) -> Result<DType> {
        match self.format {
            Format::F32 => Ok(DType::F32),
            Format::F16 => Ok(DType::F16),
            Format::Q8 => candle_core::bail!("keys and values in 8 bits are for the CPU"),
        }
    }
}

impl KvStore {
    /// A store of `n_blocks` blocks on `device`.
    pub fn new(shape: &KvShape, n_blocks: usize, device: &Device) -> Result<Self> {
        let dims = (n_blocks * BLOCK_TOKENS, shape.n_head_kv, shape.head_dim);
        let dtype = shape.dtype()?;
        let zeros = || Tensor::zeros(dims, dtype, device);
        let layers = (0..shape.n_layer)
            .map(|_| Ok(KvLayer { keys: zeros()?, values: zeros()? }))
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Keys and values of layer `index`.
    pub fn layer(&self, index: usize) -> &KvLayer {
        &self.layers[index]
    }

    /// All layers, first to last.
    pub fn layers(&self) -> &[KvLayer] {
        &self.layers
    }

    /// Copies the start of a block to another, in every layer.
    pub fn copy(&self, copy: &BlockCopy) -> Result<()> {
        for layer in &self.layers {
            for tensor in [&layer.keys, &layer.values] {
                let start = tensor.narrow(0, copy.from as usize * BLOCK_TOKENS, copy.tokens)?.copy()?;
                tensor.slice_set(&start, 0, copy.to as usize * BLOCK_TOKENS)?;
            }
        }
        Ok(())
    }
}

impl KvLayer {
    /// Writes `keys` and `values`, `[rows, n_head_kv, head_dim]`, where `runs` say.
    pub fn write(&self, runs: &[SlotRun], keys: &Tensor, values: &Tensor) -> Result<()> {
        for (cache, new) in [(&self.keys, keys), (&self.values, values)] {
            let new = new.to_dtype(cache.dtype())?.contiguous()?;
            for run in runs {
                cache.slice_set(&new.narrow(0, run.row, run.len)?, 0, run.slot)?;
            }
        }
        Ok(())
    }
}

/// Appends the slots of `span`'s tokens to `runs`; the span's first token is row `row` of the batch, and
/// `blocks` are its sequence's.
pub(crate) fn slot_runs(span: &Span<'_>, row: usize, blocks: &[BlockId], runs: &mut Vec<SlotRun>) {
    let end = span.end();
    let mut position = span.position;
    while position < end {
        let within = position % BLOCK_TOKENS;
        let Some(&block) = blocks.get(position / BLOCK_TOKENS) else { return };
        let len = (BLOCK_TOKENS - within).min(end - position);
        let run = SlotRun {
            row: row + position - span.position,
            slot: block as usize * BLOCK_TOKENS + within,
            len,
        };
        match runs.last_mut() {
            Some(last) if last.row + last.len == run.row && last.slot + last.len == run.slot => {
                last.len += len
            }
            _ => runs.push(run),
        }
        position += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::SeqId;

    #[test]
    fn runs_join_neighbouring_blocks() {
        let span = Span::tokens(SeqId(0), 30, &[0; 70]);
        let mut runs = Vec::new();
        slot_runs(&span, 5, &[7, 8, 2, 4], &mut runs);
        let expected = [
            SlotRun { row: 5, slot: 7 * 32 + 30, len: 2 + 32 },
            SlotRun { row: 39, slot: 64, len: 32 },
            SlotRun { row: 71, slot: 128, len: 4 },
        ];
        assert_eq!(runs, expected);
    }
}
