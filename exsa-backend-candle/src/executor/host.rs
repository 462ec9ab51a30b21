//! Passes on the CPU, on slices, by our own kernels.

use super::layer::Pass;
use super::workspace::{BatchMetadata, Workspace};
use super::{Context, Executor, Ropes};
use crate::error::CandleError;
use crate::kernels::float::attention::AttentionKernel;
use crate::kernels::float::rows;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::activations::Activations;
use crate::kv::{BlockCopy, HostKv, KvShape, SavedHeader};
use crate::layers::linear::Linear;
use crate::load::LoadedModel;
use crate::shape::{BLOCK_TOKENS, BlockId};
use exsa_core::backend::Capabilities;
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, LoadError, StepError};
use std::io::{Read, Write};

/// Runs a model on the threads of one session.
pub(crate) struct HostExecutor {
    team: Team,
    activations: Activations,
    attention: AttentionKernel,
    workspace: Workspace,
    metadata: BatchMetadata,
    kv: HostKv,
    logits: Vec<f32>,
}

impl HostExecutor {
    /// An executor for the sessions that `capabilities` describes, on the threads of `team`.
    pub fn new(
        model: &LoadedModel,
        shape: &KvShape,
        capabilities: &Capabilities,
        ropes: &Ropes,
        team: Team,
    ) -> Result<Self, LoadError> {
        let kv = HostKv::new(shape, capabilities.kv_tokens_max / BLOCK_TOKENS)?;
        let (tokens, context) = (capabilities.batch_tokens_max, capabilities.context_tokens_max);
        let sequences = capabilities.sequences_max.min(tokens);
        let heads = &model.transformer.layers[0].attention.heads;
        Ok(Self {
            attention: AttentionKernel::new(heads, &kv.layout(), tokens, context, team.threads()),
            activations: Activations::default(),
            workspace: Workspace::new(&model.config, tokens)?,
            metadata: BatchMetadata {
                spans: Vec::with_capacity(sequences),
                wanted: Vec::with_capacity(sequences),
                // Those that sequences share are in it several times; then it grows once.
                blocks: Vec::with_capacity(capabilities.kv_tokens_max / BLOCK_TOKENS),
                slots: Vec::with_capacity(tokens),
                rows: Vec::with_capacity(tokens),
                rope: ropes.global.host_table_for(tokens),
                rope_sliding_window: ropes.sliding_window.host_table_for(tokens),
            },
            logits: Vec::new(),
            team,
            kv,
        })
    }
}

impl Executor for HostExecutor {
    fn forward(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError> {
        let Context { model, tables, ropes, interrupt } = context;
        let transformer = &model.transformer;
        let (n_tokens, width) = (batch.len(), model.config.n_embd);
        let metadata = &mut self.metadata;
        metadata.fill(batch, tables);
        let positions = || batch.spans().flat_map(|span| span.position..span.end());
        ropes.global.host_table(positions(), &mut metadata.rope);
        ropes.sliding_window.host_table(positions(), &mut metadata.rope_sliding_window);
        let workspace = &mut self.workspace;
        transformer.embedding.gather(batch.tokens(), &mut workspace.x[..n_tokens * width]).step()?;
        if let Some(first) = transformer.layers.first() {
            let (x, normed) = (&workspace.x[..n_tokens * width], &mut workspace.normed[..n_tokens * width]);
            rows::norm(first.attention_norm.host(), x, normed, &mut self.team);
        }
        for (index, layer) in transformer.layers.iter().enumerate() {
            if interrupt.is_raised() {
                return Err(StepError::Interrupted);
            }
            let next = transformer.layers.get(index + 1);
            // After the last layer's keys only the rows that want logits matter.
            let wanted = next.is_none() && self.metadata.rows.len() < n_tokens;
            let (rope, table) = if layer.sliding_window {
                (&ropes.sliding_window, &self.metadata.rope_sliding_window)
            } else {
                (&ropes.global, &self.metadata.rope)
            };
            let mut pass = Pass {
                layer,
                config: &model.config,
                workspace: &mut self.workspace,
                metadata: &self.metadata,
                rope: rope.view(table),
                layout: self.kv.layout(),
                cache: self.kv.layer_mut(index),
                attention: &mut self.attention,
                activations: &mut self.activations,
                team: &mut self.team,
                interrupt,
                wanted: wanted.then_some(self.metadata.rows.as_slice()),
            };
            if pass.attention(n_tokens)? == 0 {
                return Ok(&[]);
            }
            let next = next.map_or(&transformer.norm, |layer| &layer.attention_norm);
            pass.mlp(next)?;
        }
        let n = self.metadata.rows.len();
        let len = n * model.n_vocab;
        // Only ever longer: values that are there already are written over.
        if self.logits.len() < len {
            self.logits.resize(len, 0.0);
        }
        let (logits, normed) = (&mut self.logits[..len], &self.workspace.normed[..n * width]);
        let output = [(&transformer.output, &mut *logits)];
        Linear::multiply(output, normed, n, &mut self.team, &mut self.activations).step()?;
        if let Some(cap) = transformer.softcap {
            rows::cap(logits, cap, &mut self.team);
        }
        Ok(&self.logits[..len])
    }

    fn copy(&mut self, copy: &BlockCopy) -> Result<(), StepError> {
        self.kv.copy(copy);
        Ok(())
    }

    fn save(
        &self,
        header: &SavedHeader,
        blocks: &[BlockId],
        len: usize,
        to: &mut dyn Write,
    ) -> Result<(), KvError> {
        self.kv.save(header, blocks, len, to)
    }

    fn restore(
        &mut self,
        header: &SavedHeader,
        blocks: &[BlockId],
        len: usize,
        from: &mut dyn Read,
    ) -> Result<(), KvError> {
        self.kv.restore(header, blocks, len, from)
    }
}
