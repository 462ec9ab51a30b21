//! Passes on the CPU, on slices, by our own kernels.

use super::adapters::{AdapterBatch, RowsOf};
use super::layer::Pass;
use super::workspace::{BatchMetadata, Workspace};
use super::{Context, Executor, Ropes};
use crate::adapters::Place;
use crate::compute::Threads;
use crate::error::CandleError;
use crate::input_sums::InputSums;
use crate::kernels::float::attention::{AttentionKernel, AttentionSizes};
use crate::kernels::float::rows;
use crate::kernels::memory::buffer::resize;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::Isa;
use crate::kv::{BlockCopy, HostKv};
use crate::layers::linear::{Activations, Linear};
use crate::load::LoadedModel;
use crate::plan::SessionPlan;
use crate::shape::BlockId;
use exsa_core::backend::Capabilities;
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_models::{Config, LayerRope};
use std::io::{Read, Write};

/// Runs a model on the threads of one session, or on those that it shares with others.
pub(crate) struct HostExecutor {
    threads: Threads,
    memory: Memory,
}

/// Memory of passes, and the KV cache.
struct Memory {
    activations: Activations,
    attention: AttentionKernel,
    workspace: Workspace,
    metadata: BatchMetadata,
    adapters: AdapterBatch,
    kv: HostKv,
    logits: Vec<f32>,
}

impl HostExecutor {
    /// An executor of a session by `plan`.
    pub fn new(
        model: &LoadedModel,
        plan: &SessionPlan,
        ropes: &Ropes,
        threads: Threads,
    ) -> Result<Self, LoadError> {
        let memory = Memory {
            activations: Activations::default(),
            attention: AttentionKernel::new(attention_sizes(&model.config, plan, threads.count())),
            workspace: Workspace::new(&model.config, plan.capabilities.batch_tokens_max)?,
            metadata: BatchMetadata::new(plan, ropes),
            adapters: AdapterBatch::new(model.isa.unwrap_or(Isa::SCALAR), plan, threads.count())?,
            kv: HostKv::new(&plan.kv_shape, plan.n_blocks as usize)?,
            logits: Vec::new(),
        };
        Ok(Self { threads, memory })
    }

    /// Sums up the inputs of projections from now on.
    pub fn sum_inputs(&mut self) {
        self.memory.adapters.input_sums = Some(Box::default());
    }

    /// The sums of [`sum_inputs`](Self::sum_inputs).
    pub fn input_sums(&self) -> Option<&InputSums> {
        self.memory.adapters.input_sums.as_deref()
    }

    /// Adds the `rows` hidden states of the last [`hidden_states`](Executor::hidden_states), `[rows, width]`,
    /// to the sums, as the inputs of the output projection.
    pub fn sum_output_inputs(&mut self, rows: usize, width: usize) {
        let Memory { adapters, workspace, .. } = &mut self.memory;
        if let Some(sums) = &mut adapters.input_sums {
            sums.add([Place::Output], &workspace.normed[..rows * width], width);
        }
    }

    /// Bytes of an executor on `threads` threads, without KV cache, logits and memory of products.
    pub fn bytes(config: &Config, plan: &SessionPlan, threads: usize) -> u64 {
        Workspace::bytes(config, plan.capabilities.batch_tokens_max)
            .saturating_add(BatchMetadata::bytes(plan, config))
            .saturating_add(AdapterBatch::bytes(plan, threads))
            .saturating_add(attention_sizes(config, plan, threads).bytes())
    }
}

fn attention_sizes(config: &Config, plan: &SessionPlan, threads: usize) -> AttentionSizes {
    let Capabilities { batch_tokens_max, context_tokens_max, .. } = plan.capabilities;
    let (heads, layout) = (config.heads(0), plan.kv_shape.layout());
    AttentionSizes::new(&heads, &layout, batch_tokens_max, context_tokens_max, threads)
}

impl Memory {
    /// Runs `batch` on `team` through all layers; returns the number of its rows, whose normalized hidden
    /// states are at the front of `workspace.normed`.
    fn layers(&mut self, batch: &Batch, context: Context<'_>, team: &mut Team) -> Result<usize, StepError> {
        let Context { model, tables, ropes, interrupt } = context;
        let transformer = &model.transformer;
        let (n_tokens, width) = (batch.len(), model.config.n_embd);
        let metadata = &mut self.metadata;
        metadata.fill(batch, tables);
        self.adapters.fill(batch, model)?;
        let positions = || batch.spans().flat_map(|span| span.position..span.end());
        ropes.global.host_table(positions(), &mut metadata.rope);
        ropes.sliding_window.host_table(positions(), &mut metadata.rope_sliding_window);
        let workspace = &mut self.workspace;
        transformer.embedding.gather(batch.tokens(), &mut workspace.x[..n_tokens * width]).step()?;
        if let Some(first) = transformer.layers.first() {
            let (x, normed) = (&workspace.x[..n_tokens * width], &mut workspace.normed[..n_tokens * width]);
            rows::input(first.attention_input.host(), x, width, normed, team);
        }
        for (index, layer) in transformer.layers.iter().enumerate() {
            if interrupt.is_raised() {
                return Err(StepError::Interrupted);
            }
            let next = transformer.layers.get(index + 1);
            // After the last layer's keys only the rows that want logits matter.
            let wanted = next.is_none() && self.metadata.rows.len() < n_tokens;
            let rope = match layer.rope {
                LayerRope::Global => ropes.global.view(&self.metadata.rope),
                LayerRope::SlidingWindow => ropes.sliding_window.view(&self.metadata.rope_sliding_window),
                LayerRope::Absent => ropes.global.absent(),
            };
            let mut pass = Pass {
                index,
                layer,
                config: &model.config,
                workspace: &mut self.workspace,
                metadata: &self.metadata,
                rope,
                layout: self.kv.layout(),
                cache: self.kv.layer_mut(index),
                attention: &mut self.attention,
                activations: &mut self.activations,
                adapters: &mut self.adapters,
                team: &mut *team,
                interrupt,
                wanted: wanted.then_some(self.metadata.rows.as_slice()),
            };
            if pass.attention(n_tokens)? == 0 {
                return Ok(0);
            }
            let next = next.map_or(&transformer.norm, |layer| &layer.attention_input);
            pass.mlp(next)?;
        }
        Ok(self.metadata.rows.len())
    }

    /// Runs `batch` on `team`; returns the number of values at the front of `logits`.
    fn forward(&mut self, batch: &Batch, context: Context<'_>, team: &mut Team) -> Result<usize, StepError> {
        let n = self.layers(batch, context, team)?;
        if n == 0 {
            return Ok(0);
        }
        let model = context.model;
        let (transformer, width) = (&model.transformer, model.config.n_embd);
        let len = n * model.n_vocab;
        // Only ever longer: values that are there already are written over.
        if self.logits.len() < len {
            resize(&mut self.logits, len);
        }
        let (logits, normed) = (&mut self.logits[..len], &self.workspace.normed[..n * width]);
        let output = [(&transformer.output, &mut *logits)];
        Linear::multiply(output, normed, n, team, &mut self.activations).step()?;
        self.adapters.add([(Place::Output, &mut *logits)], normed, width, RowsOf::Wanted, team);
        if let Some(factor) = transformer.logit_scale {
            rows::scale(logits, factor, team);
        }
        if let Some(cap) = transformer.softcap {
            rows::cap(logits, cap, team);
        }
        Ok(len)
    }
}

impl Executor for HostExecutor {
    fn forward(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError> {
        let Self { threads, memory } = self;
        let pass = threads.run(|team| memory.forward(batch, context, team));
        memory.adapters.clear();
        let len = pass.map_err(|error| StepError::Backend(error.to_string()))??;
        Ok(&memory.logits[..len])
    }

    fn hidden_states(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError> {
        let Self { threads, memory } = self;
        let pass = threads.run(|team| memory.layers(batch, context, team));
        memory.adapters.clear();
        let rows = pass.map_err(|error| StepError::Backend(error.to_string()))??;
        Ok(&memory.workspace.normed[..rows * context.model.config.n_embd])
    }

    fn copy(&mut self, copy: &BlockCopy) -> Result<(), StepError> {
        self.memory.kv.copy(copy);
        Ok(())
    }

    fn save(&self, blocks: &[BlockId], len: usize, to: &mut dyn Write) -> Result<(), KvError> {
        self.memory.kv.save(blocks, len, to)
    }

    fn restore(&mut self, blocks: &[BlockId], len: usize, from: &mut dyn Read) -> Result<(), KvError> {
        self.memory.kv.restore(blocks, len, from)
    }
}
