//! Token embeddings.

use crate::mapped_weights::MappedRows;
use candle_core::quantized::QTensor;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// The embedding of every token, `[n_vocab, n_embd]`, in the type that the file has it in, to be multiplied
/// by a scale.
#[derive(Clone)]
pub(crate) struct Embedding {
    table: Table,
    scale: f32,
}

#[derive(Clone)]
enum Table {
    /// In host memory.
    Host(Arc<MappedRows>),
    /// As a tensor.
    Device(Arc<QTensor>),
}

impl Embedding {
    /// Embeddings in host memory.
    pub fn host(table: Arc<MappedRows>, scale: f32) -> Self {
        Self { table: Table::Host(table), scale }
    }

    /// Embeddings for passes over tensors.
    pub fn device(table: Arc<QTensor>, scale: f32) -> Self {
        Self { table: Table::Device(table), scale }
    }

    /// The embeddings of `tokens`, each below `n_vocab`: `[tokens, n_embd]` f32.
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor> {
        let Table::Device(table) = &self.table else {
            candle_core::bail!("embeddings on the host, in a pass over tensors")
        };
        let embeddings = table.embedding(&Tensor::new(tokens, &table.device())?)?;
        if self.scale == 1.0 { Ok(embeddings) } else { embeddings * f64::from(self.scale) }
    }

    /// Gathers the embeddings of `tokens`, each below `n_vocab`, into `out`, `[tokens, n_embd]`, on the host.
    pub fn gather(&self, tokens: &[u32], out: &mut [f32]) -> Result<()> {
        let Table::Host(table) = &self.table else {
            candle_core::bail!("embeddings on a device, in a pass on the host")
        };
        let width = out.len() / tokens.len().max(1);
        for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(width.max(1))) {
            table.row(token as usize, out);
            if self.scale != 1.0 {
                out.iter_mut().for_each(|x| *x *= self.scale);
            }
        }
        Ok(())
    }
}
