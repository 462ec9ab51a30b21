//! Token embeddings.

use candle_core::quantized::QTensor;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// The embedding of every token, in the type that the file has it in.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    table: Arc<QTensor>,
    scale: f32,
}

impl Embedding {
    /// Embeddings `[n_vocab, n_embd]`, to be multiplied by `scale`.
    pub fn new(table: Arc<QTensor>, scale: f32) -> Self {
        Self { table, scale }
    }

    /// The embeddings of `tokens`, each below `n_vocab`: `[tokens, n_embd]` f32.
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(tokens, &self.table.device())?;
        let embeddings = self.table.embedding(&ids)?;
        if self.scale == 1.0 { Ok(embeddings) } else { embeddings * f64::from(self.scale) }
    }
}
