//! Executors of a [`Transformer`](crate::transformer::Transformer): our own kernels on slices on the CPU,
//! candle's operations on tensors elsewhere.
//!
//! Both read the same description of the layers. They differ in the form of the weights, which is settled
//! when a model is loaded, and in where keys and values lie, which each owns.

mod adapters;
mod host;
mod layer;
mod tensors;
mod workspace;

pub(crate) use host::HostExecutor;
pub(crate) use tensors::TensorExecutor;

use crate::kv::{BlockCopy, BlockTables};
use crate::layers::rope::Rope;
use crate::load::LoadedModel;
use crate::shape::BlockId;
use exsa_core::backend::Interrupt;
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, StepError};
use exsa_models::RopeConfig;
use std::io::{Read, Write};

/// RoPE of global and of sliding-window layers.
pub(crate) struct Ropes {
    /// Of global layers.
    pub global: Rope,
    /// Of sliding-window layers.
    pub sliding_window: Rope,
}

impl Ropes {
    /// RoPE of `model` in sequences of up to `context` tokens.
    pub fn of(model: &LoadedModel, context: usize) -> Self {
        let config = &model.config;
        let freq_factors = model.freq_factors.of(config, context);
        let pairs = config.architecture.rope_pairs;
        let rope = |config: &RopeConfig| Rope::new(config, pairs, freq_factors);
        Self { global: rope(&config.rope), sliding_window: rope(&config.rope_sliding_window) }
    }
}

/// Context of a pass beside its batch.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The model.
    pub model: &'a LoadedModel,
    /// Which blocks belong to which sequence, the batch's tokens included.
    pub tables: &'a BlockTables,
    /// RoPE.
    pub ropes: &'a Ropes,
    /// Ends a pass early.
    pub interrupt: &'a Interrupt,
}

/// Runs forward passes, and holds keys and values.
pub(crate) trait Executor: Send {
    /// Runs `batch`, which is not empty and has its blocks; its logits are `[rows, n_vocab]`.
    fn forward(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError>;

    /// Runs `batch` like [`forward`](Self::forward); gives the normalized hidden states behind the last layer
    /// of its rows, `[rows, n_embd]`.
    fn hidden_states(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError>;

    /// Copies the start of a block to another, in every layer.
    fn copy(&mut self, copy: &BlockCopy) -> Result<(), StepError>;

    /// Writes the keys and values of the first `len` tokens in `blocks`:
    /// [`KvShape::saved_bytes`](crate::kv::KvShape::saved_bytes).
    fn save(&self, blocks: &[BlockId], len: usize, to: &mut dyn Write) -> Result<(), KvError>;

    /// Reads what [`save`](Self::save) wrote into `blocks`.
    fn restore(&mut self, blocks: &[BlockId], len: usize, from: &mut dyn Read) -> Result<(), KvError>;
}
