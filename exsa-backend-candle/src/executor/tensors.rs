//! Passes over candle's tensors, on any of its devices.

use super::{Context, Executor};
use crate::error::CandleError;
use crate::kv::{BlockCopy, KvStore, slot_runs};
use crate::layers::attention::{Placement, Rows};
use crate::layers::paged::PagedSpan;
use crate::plan::SessionPlan;
use crate::shape::BlockId;
use crate::tensor_values as values;
use crate::transformer::{Step, Transformer};
use candle_core::{Device, Tensor};
use exsa_core::SeqId;
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, LoadError, StepError};
use std::io::{Read, Write};

/// Runs a model over tensors on a device.
pub(crate) struct TensorExecutor {
    device: Device,
    kv: KvStore,
    /// Logits or hidden states of the last pass.
    rows: Vec<f32>,
}

impl TensorExecutor {
    /// An executor of a session by `plan` on `device`, where the model's weights are.
    pub fn new(device: Device, plan: &SessionPlan) -> Result<Self, LoadError> {
        let kv = KvStore::new(&plan.kv_shape, plan.n_blocks as usize, &device).load()?;
        Ok(Self { device, kv, rows: Vec::new() })
    }
}

impl TensorExecutor {
    /// Runs `batch`; `output` computes what is wanted of the hidden states of its rows.
    fn run(
        &mut self,
        batch: &Batch,
        context: Context<'_>,
        output: impl FnOnce(&Transformer, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<&[f32], StepError> {
        self.rows.clear();
        let mut placement = Placement { spans: Vec::with_capacity(batch.span_count()), runs: Vec::new() };
        let mut positions = Vec::with_capacity(batch.len());
        for span in batch.spans() {
            let row = positions.len();
            let blocks = context.tables.blocks(span.seq);
            slot_runs(&span, row, blocks, &mut placement.runs);
            placement.spans.push(PagedSpan { row, len: span.len(), position: span.position, blocks });
            positions.extend(span.position..span.end());
        }
        let rows = batch.row_tokens().map(|row| row as u32).collect();
        let step = Step {
            tokens: batch.tokens(),
            placement,
            rope: context.ropes.global.table(&positions, &self.device).step()?,
            rope_sliding_window: context.ropes.sliding_window.table(&positions, &self.device).step()?,
            rows: Rows::new(rows, batch.len()),
        };
        let transformer = &context.model.transformer;
        if let Some(x) = transformer.layers(&step, &self.kv, context.interrupt)? {
            let rows = output(transformer, &x).and_then(|rows| rows.to_device(&Device::Cpu)).step()?;
            values::read(&rows, |values: &[f32]| self.rows.extend_from_slice(values)).step()?;
        }
        Ok(&self.rows)
    }
}

impl Executor for TensorExecutor {
    fn forward(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError> {
        self.run(batch, context, Transformer::logits)
    }

    fn hidden_states(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError> {
        self.run(batch, context, |transformer, x| transformer.norm.forward(x, x))
    }

    fn copy(&mut self, copy: &BlockCopy) -> Result<(), StepError> {
        self.kv.copy(copy).step()
    }

    fn save(&self, _: SeqId, blocks: &[BlockId], len: usize, to: &mut dyn Write) -> Result<(), KvError> {
        self.kv.save(blocks, len, to)
    }

    fn restore(
        &mut self,
        _: SeqId,
        blocks: &[BlockId],
        len: usize,
        from: &mut dyn Read,
    ) -> Result<(), KvError> {
        self.kv.restore(blocks, len, from)
    }
}
