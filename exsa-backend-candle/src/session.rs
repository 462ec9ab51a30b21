//! Sessions: the KV of several sequences, and forward passes over ragged batches.

use crate::compute::Threads;
use crate::executor::{Context, Executor, HostExecutor, Ropes, TensorExecutor};
use crate::kv::{BlockTables, KvShape};
use crate::load::LoadedModel;
use crate::packed_cache::BackgroundCheck;
use crate::plan::SessionPlan;
use crate::pooling::{pool, pooled_rows};
use crate::shape::BLOCK_TOKENS;
use candle_core::Device;
use exsa_core::SeqId;
use exsa_core::backend::{Capabilities, Fingerprint, Interrupt, Output, SavedKv, Session, SessionOptions};
use exsa_core::batch::{Batch, Embeddings, Logits};
use exsa_core::error::{KvError, LoadError, StepError};
use std::io::{Read, Write};
use std::sync::Arc;

/// A session of a [`LoadedModel`].
pub(crate) struct CandleSession {
    model: Arc<LoadedModel>,
    capabilities: Capabilities,
    interrupt: Interrupt,
    ropes: Ropes,
    tables: BlockTables,
    kv_shape: KvShape,
    /// Bytes of the states of a sequence where it is saved.
    state_bytes: usize,
    executor: Box<dyn Executor>,
    fingerprint: Fingerprint,
    /// Memory of [`Batch::validate`].
    met: Vec<bool>,
    /// Vectors of the last [`Session::embed`].
    vectors: Vec<f32>,
}

impl CandleSession {
    /// A session of `model` on `device`, where its weights are; `None` runs on the host's kernels, for which
    /// it then was loaded.
    pub fn new(
        model: Arc<LoadedModel>,
        device: Option<Device>,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let config = &model.config;
        let plan = SessionPlan::new(config, options, device.is_none())?;
        let context = plan.capabilities.context_tokens_max;
        let mut fingerprint = model.fingerprint;
        fingerprint.update(&[u8::from(config.is_long(context))]);
        plan.kv_shape.fingerprint(&mut fingerprint);
        let state_bytes = plan.state_bytes() as usize;
        let ropes = Ropes::of(&model, context);
        let executor: Box<dyn Executor> = match device {
            Some(device) => Box::new(TensorExecutor::new(device, &plan)?),
            None => Box::new(HostExecutor::new(&model, &plan, &ropes, Threads::new(options)?)?),
        };
        let SessionPlan { kv_shape, n_blocks, capabilities, .. } = plan;
        let Capabilities { sequences_max, context_tokens_max, .. } = capabilities;
        Ok(Self {
            tables: BlockTables::new(sequences_max, n_blocks, context_tokens_max),
            interrupt: options.interrupt.clone(),
            met: vec![false; sequences_max],
            vectors: Vec::new(),
            ropes,
            executor,
            fingerprint,
            kv_shape,
            state_bytes,
            capabilities,
            model,
        })
    }

    /// Header of `len` saved tokens.
    fn saved(&self, len: usize) -> SavedKv {
        let bytes = self.kv_shape.saved_bytes(len).saturating_add(self.state_bytes);
        SavedKv::new("candle", self.fingerprint, len, bytes)
    }

    /// Everything that can be wrong with a batch, before anything changes.
    fn check(&mut self, batch: &Batch) -> Result<(), StepError> {
        let Self { tables, capabilities, met, model, .. } = self;
        if model.check.as_ref().is_some_and(BackgroundCheck::is_damaged) {
            return Err(StepError::Backend("the packed weights of the model are damaged".into()));
        }
        batch.validate(capabilities, model.n_vocab, met, |seq| tables.len(seq))?;
        tables.check_room(batch.spans())
    }

    /// Takes the batch's blocks, and copies those that others share.
    fn append(&mut self, batch: &Batch) -> Result<(), StepError> {
        for span in batch.spans() {
            if let Some(copy) = self.tables.append(span.seq, span.len())? {
                self.executor.copy(&copy)?;
            }
        }
        Ok(())
    }
}

/// Forgets what a pass that failed may have left. States cannot go back: sequences that have them lose all.
fn take_back(tables: &mut BlockTables, batch: &Batch, capabilities: &Capabilities) {
    for span in batch.spans() {
        // A span that was not reached holds its tokens still, and no more.
        let len = if capabilities.truncate { span.position } else { 0 };
        tables.truncate(span.seq, len).ok();
    }
}

impl Session for CandleSession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn kv_bytes_per_token(&self) -> Option<u64> {
        Some(self.kv_shape.block_bytes()?.div_ceil(BLOCK_TOKENS as u64))
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        self.check(batch)?;
        let n_vocab = self.model.n_vocab;
        if batch.is_empty() {
            return Ok(Logits::new(&[], n_vocab).into());
        }
        if let Err(error) = self.append(batch) {
            take_back(&mut self.tables, batch, &self.capabilities);
            return Err(error);
        }
        let Self { model, tables, ropes, interrupt, executor, capabilities, .. } = self;
        match executor.forward(batch, Context { model, tables, ropes, interrupt }) {
            Ok(logits) => Ok(Logits::new(logits, n_vocab).into()),
            Err(error) => {
                take_back(tables, batch, capabilities);
                Err(error)
            }
        }
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        let pooling = self.capabilities.embed.ok_or(StepError::Unsupported("embed"))?;
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        self.check(batch)?;
        if let Some(span) = batch.spans().find(|span| span.position > 0) {
            return Err(StepError::Sequence { seq: span.seq, problem: "it is not empty".to_owned() });
        }
        let width = self.model.config.n_embd;
        self.vectors.clear();
        if batch.is_empty() {
            return Ok(Embeddings::new(&self.vectors, width));
        }
        let texts = pooled_rows(batch, pooling)?;
        let appended = self.append(&texts);
        let Self { model, tables, ropes, interrupt, executor, vectors, .. } = self;
        let result = appended.and_then(|()| {
            let states = executor.hidden_states(&texts, Context { model, tables, ropes, interrupt })?;
            let mut states = states.chunks_exact(width);
            texts.spans().for_each(|span| pool(states.by_ref().take(span.rows), pooling, vectors));
            Ok(())
        });
        take_back(&mut self.tables, &texts, &self.capabilities);
        result.map(|()| Embeddings::new(&self.vectors, width))
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        if !self.capabilities.fork {
            return Err(KvError::Unsupported("fork"));
        }
        self.tables.fork(from, to, len)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        if !self.capabilities.truncate && len > 0 && self.tables.len(seq) != Some(len) {
            return Err(KvError::Unsupported("truncate"));
        }
        self.tables.truncate(seq, len)
    }

    fn release(&mut self, seq: SeqId) {
        self.tables.truncate(seq, 0).ok();
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        let len = self.tables.existing_len(seq)?;
        self.saved(len).write(to, |to| self.executor.save(seq, self.tables.blocks(seq), len, to))
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.tables.check_empty(seq)?;
        let (expected, context) = (self.saved(0), self.capabilities.context_tokens_max);
        let restored = SavedKv::read(from, &expected, context, |header, from| {
            // It is no more than the context.
            let len = usize::try_from(header.tokens).unwrap_or(usize::MAX);
            let needed = self.saved(len).payload_bytes;
            if header.payload_bytes != needed {
                let problem = format!("{} bytes for {len} tokens, which take {needed}", header.payload_bytes);
                return Err(KvError::Format(problem));
            }
            self.tables.fill(seq, len)?;
            self.executor.restore(seq, self.tables.blocks(seq), len, from)?;
            Ok(len)
        });
        if restored.is_err() {
            self.release(seq);
        }
        restored
    }
}
