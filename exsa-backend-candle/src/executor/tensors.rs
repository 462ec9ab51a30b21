//! Passes over candle's tensors, on any of its devices.

use super::{Context, Executor};
use crate::error::CandleError;
use crate::kv::{BlockCopy, KvStore, slot_runs};
use crate::layers::attention::{Placement, Rows};
use crate::layers::paged::PagedSpan;
use crate::plan::SessionPlan;
use crate::shape::BlockId;
use crate::tensor_values as values;
use crate::transformer::Step;
use candle_core::Device;
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, LoadError, StepError};
use std::io::{Read, Write};

/// Runs a model over tensors on a device.
pub(crate) struct TensorExecutor {
    device: Device,
    kv: KvStore,
    logits: Vec<f32>,
}

impl TensorExecutor {
    /// An executor of a session by `plan` on `device`, where the model's weights are.
    pub fn new(device: Device, plan: &SessionPlan) -> Result<Self, LoadError> {
        let kv = KvStore::new(&plan.kv_shape, plan.n_blocks as usize, &device).load()?;
        Ok(Self { device, kv, logits: Vec::new() })
    }
}

impl Executor for TensorExecutor {
    fn forward(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError> {
        self.logits.clear();
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
        let logits = context.model.transformer.forward(&step, &self.kv, context.interrupt)?;
        if let Some(logits) = logits {
            let logits = logits.to_device(&Device::Cpu).step()?;
            values::read(&logits, |values: &[f32]| self.logits.extend_from_slice(values)).step()?;
        }
        Ok(&self.logits)
    }

    fn copy(&mut self, copy: &BlockCopy) -> Result<(), StepError> {
        self.kv.copy(copy).step()
    }

    fn save(&self, blocks: &[BlockId], len: usize, to: &mut dyn Write) -> Result<(), KvError> {
        self.kv.save(blocks, len, to)
    }

    fn restore(&mut self, blocks: &[BlockId], len: usize, from: &mut dyn Read) -> Result<(), KvError> {
        self.kv.restore(blocks, len, from)
    }
}
