//! Sessions: the KV of several sequences, and forward passes over ragged batches.

mod angles;
mod cache;
mod metadata;
mod pass;
mod plan;
mod pooling;
mod scratch;
mod tables;

pub(crate) use angles::table as angle_table;
pub(crate) use plan::SessionPlan;

use crate::device::{Device, DeviceError};
use crate::kernel::launch::AttentionKernels;
use crate::model::Loaded;
use angles::Angles;
use cache::KvCache;
use exsa_core::SeqId;
use exsa_core::backend::{Capabilities, Fingerprint, Interrupt, Output, SavedKv, Session, SessionOptions};
use exsa_core::batch::{Batch, Embeddings, Logits};
use exsa_core::error::{KvError, LoadError, StepError};
use metadata::Metadata;
use pass::Pass;
use pooling::{pool, pooled_rows};
use scratch::Scratch;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tables::{BLOCK_TOKENS, BlockTables};

/// A session of a model on a device.
#[derive(Debug)]
pub(crate) struct GpuSession<D: Device> {
    model: Arc<Loaded<D>>,
    plan: SessionPlan,
    interrupt: Interrupt,
    tables: BlockTables,
    fingerprint: Fingerprint,
    kernels: AttentionKernels<D>,
    cache: KvCache<D>,
    scratch: Scratch<D>,
    metadata: Metadata<D>,
    /// Of global layers and of sliding-window layers.
    angles: [Angles<D>; 2],
    /// Locked by `save`, which has no exclusive access.
    stream: Mutex<D::Stream>,
    /// Memory of [`Batch::validate`].
    met: Vec<bool>,
    /// Result of the last pass: logits or hidden states.
    values: Vec<f32>,
    /// Vectors of the last `embed`.
    vectors: Vec<f32>,
}

impl<D: Device> GpuSession<D> {
    pub fn new(model: Arc<Loaded<D>>, options: &SessionOptions) -> Result<Self, LoadError> {
        let (device, config) = (&*model.device, &model.config);
        let plan = SessionPlan::new(config, model.n_vocab, device.limits(), options)?;
        let Capabilities { sequences_max, context_tokens_max, batch_tokens_max, .. } = plan.capabilities;
        let mut fingerprint = model.fingerprint;
        fingerprint.update(&[u8::from(config.is_long(context_tokens_max))]);
        fingerprint.update(plan.element.name().as_bytes());
        let factors = model.freq_factors.of(config, context_tokens_max);
        let angles = |rope: &exsa_models::RopeConfig| {
            Angles::new(device, &rope.frequencies(factors), context_tokens_max)
        };
        let angles = [angles(&config.rope)?, angles(&config.rope_sliding_window)?];
        let head_dim = u32::try_from(config.head_dim).unwrap_or(u32::MAX);
        let kernels = AttentionKernels::new(device, plan.element, head_dim)?;
        let cache = KvCache::new(device, &plan, config.head_dim)?;
        let scratch = Scratch::new(device, &plan.scratch)?;
        let metadata = Metadata::new(device, batch_tokens_max, plan.n_blocks as usize)?;
        let stream = Mutex::new(device.stream()?);
        Ok(Self {
            tables: BlockTables::new(sequences_max, plan.n_blocks),
            interrupt: options.interrupt.clone(),
            met: vec![false; sequences_max],
            values: Vec::new(),
            vectors: Vec::new(),
            plan,
            fingerprint,
            kernels,
            cache,
            scratch,
            metadata,
            angles,
            stream,
            model,
        })
    }

    /// Header of `len` saved tokens.
    fn saved(&self, len: usize) -> SavedKv {
        let bytes = self.plan.block_bytes_all().saturating_mul(len.div_ceil(BLOCK_TOKENS) as u64);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        SavedKv::new(self.model.backend, self.fingerprint, len, bytes)
    }

    /// Everything that can be wrong with a batch, before anything changes.
    fn check(&mut self, batch: &Batch) -> Result<(), StepError> {
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        let Self { tables, plan, met, model, .. } = self;
        batch.validate(&plan.capabilities, model.n_vocab, met, |seq| tables.len(seq))?;
        tables.check_room(batch.spans())
    }

    /// Runs `batch`, which was checked; its logits, or with `states` its hidden states, are in `values`.
    fn run(&mut self, batch: &Batch, states: bool) -> Result<(), StepError> {
        let result = self.append(batch).and_then(|()| self.pass(batch, states));
        if result.is_err() {
            self.take_back(batch);
        }
        result
    }

    /// Takes the batch's blocks, and copies those that others share.
    fn append(&mut self, batch: &Batch) -> Result<(), StepError> {
        let Self { tables, cache, stream, .. } = self;
        let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        for span in batch.spans() {
            if let Some(copy) = tables.append(span.seq, span.len())? {
                cache.copy(copy, stream)?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, batch: &Batch, states: bool) -> Result<(), StepError> {
        let Self { model, tables, metadata, stream, values, .. } = self;
        let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (n_head, n_head_kv) = (model.config.n_head as u32, model.config.n_head_kv as u32);
        let view_rows = AttentionKernels::<D>::rows_at_once(n_head, n_head_kv);
        metadata.fill(&model.device, stream, (batch, tables), view_rows)?;
        let mut pass = Pass {
            model,
            stream,
            kernels: &self.kernels,
            cache: &self.cache,
            scratch: &self.scratch,
            sizes: &self.plan.scratch,
            metadata,
            angles: [&self.angles[0], &self.angles[1]],
            interrupt: &self.interrupt,
        };
        let buffer = pass.layers()?;
        let width = if states { model.config.n_embd } else { model.n_vocab };
        values.resize(batch.rows() * width, 0.0);
        match buffer {
            None => Ok(pass.finish()?),
            Some(buffer) if states => pass.states(buffer, values),
            Some(buffer) => pass.logits(buffer, values),
        }
    }

    /// Forgets what a pass may have left.
    fn take_back(&mut self, batch: &Batch) {
        for span in batch.spans() {
            // A span that was not reached holds its tokens still, and no more.
            self.tables.truncate(span.seq, span.position).ok();
        }
    }
}

impl<D: Device> Pass<'_, D> {
    /// Waits for a pass without rows.
    fn finish(&mut self) -> Result<(), DeviceError> {
        crate::device::Stream::synchronize(self.stream)
    }
}

impl<D: Device> Session for GpuSession<D> {
    fn capabilities(&self) -> &Capabilities {
        &self.plan.capabilities
    }

    fn kv_bytes_per_token(&self) -> Option<u64> {
        Some(self.plan.block_bytes_all().div_ceil(BLOCK_TOKENS as u64))
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.check(batch)?;
        if batch.is_empty() {
            return Ok(Logits::new(&[], self.model.n_vocab).into());
        }
        self.run(batch, false)?;
        Ok(Logits::new(&self.values, self.model.n_vocab).into())
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        let pooling = self.plan.capabilities.embed.ok_or(StepError::Unsupported("embed"))?;
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
        self.run(&texts, true)?;
        let mut states = self.values.chunks_exact(width);
        for span in texts.spans() {
            pool(states.by_ref().take(span.rows), pooling, &mut self.vectors);
        }
        self.take_back(&texts);
        Ok(Embeddings::new(&self.vectors, width))
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.tables.fork(from, to, len)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.tables.truncate(seq, len)
    }

    fn release(&mut self, seq: SeqId) {
        self.tables.truncate(seq, 0).ok();
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        let len = self.tables.existing_len(seq)?;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        self.saved(len).write(to, |to| self.cache.save(self.tables.blocks(seq), len, &mut stream, to))
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.tables.check_empty(seq)?;
        let (expected, context) = (self.saved(0), self.plan.capabilities.context_tokens_max);
        let restored = SavedKv::read(from, &expected, context, |header, from| {
            // It is no more than the context.
            let len = usize::try_from(header.tokens).unwrap_or(usize::MAX);
            let needed = self.saved(len).payload_bytes;
            if header.payload_bytes != needed {
                let problem = format!("{} bytes for {len} tokens, which take {needed}", header.payload_bytes);
                return Err(KvError::Format(problem));
            }
            self.tables.fill(seq, len)?;
            let stream = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.cache.restore(self.tables.blocks(seq), stream, from)?;
            Ok(len)
        });
        if restored.is_err() {
            self.release(seq);
        }
        restored
    }
}
