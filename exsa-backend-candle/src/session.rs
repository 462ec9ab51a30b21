//! Sessions: the KV of several sequences, and forward passes over ragged batches.

use crate::compute;
use crate::config::{FreqFactors, RopeConfig};
use crate::executor::{Context, Executor, HostExecutor, Ropes, TensorExecutor};
use crate::kernels::float::kv_layout::Format;
use crate::kv::{BlockTables, Fingerprint, KvShape, SavedHeader};
use crate::layers::rope::Rope;
use crate::load::LoadedModel;
use crate::shape::BLOCK_TOKENS;
use candle_core::Device;
use exsa_core::SeqId;
use exsa_core::backend::{Capabilities, Interrupt, Output, Session, SessionOptions};
use exsa_core::batch::{Batch, Logits};
use exsa_core::error::{KvError, LoadError, StepError};
use std::io::{Read, Write};
use std::sync::Arc;

/// Most sequences that a session can be asked for.
const SEQUENCES_MAX: usize = 1 << 16;

/// A session of a [`LoadedModel`].
pub(crate) struct CandleSession {
    model: Arc<LoadedModel>,
    capabilities: Capabilities,
    interrupt: Interrupt,
    ropes: Ropes,
    tables: BlockTables,
    kv_shape: KvShape,
    executor: Box<dyn Executor>,
    fingerprint: Fingerprint,
    /// Memory of [`Batch::validate`].
    met: Vec<bool>,
}

impl CandleSession {
    /// A session of `model` on `device`, where its weights are; `None` runs on the host's kernels, for which it then was
    /// loaded.
    pub fn new(
        model: Arc<LoadedModel>,
        device: Option<Device>,
        format: Format,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let config = &model.config;
        let kv_shape = KvShape {
            n_layer: config.n_layer,
            n_head_kv: config.n_head_kv,
            head_dim: config.head_dim,
            format,
        };
        if format == Format::Q8 && device.is_some() {
            let problem = "keys and values in 8 bits are for the CPU".to_owned();
            return Err(LoadError::Option { option: "kv_type", problem });
        }
        let capabilities = plan(config.n_ctx, &kv_shape, options)?;
        let n_blocks = capabilities.kv_tokens_max / BLOCK_TOKENS;
        let block_ids = u32::try_from(n_blocks).map_err(|_| LoadError::Option {
            option: "kv_tokens_max",
            problem: format!("{n_blocks} blocks, but {} can be told apart", u32::MAX),
        })?;
        let long = capabilities.context_tokens_max > config.rope.original_context;
        let freq_factors = &model.freq_factors;
        let by_length = if long { &freq_factors.long } else { &freq_factors.short };
        let freq_factors = freq_factors.all.as_deref().or(by_length.as_deref());
        let pairs = config.architecture.rope_pairs;
        let rope = |config: &RopeConfig| {
            Rope::new(config, pairs, freq_factors.filter(|_| config.freq_factors != FreqFactors::Never))
        };
        let mut fingerprint = model.fingerprint;
        fingerprint.update(&[u8::from(long)]);
        let ropes = Ropes { global: rope(&config.rope), sliding_window: rope(&config.rope_sliding_window) };
        let executor: Box<dyn Executor> = match device {
            Some(device) => Box::new(TensorExecutor::new(device, &kv_shape, n_blocks)?),
            None => {
                let team = compute::team(&options.threads)?;
                Box::new(HostExecutor::new(&model, &kv_shape, &capabilities, &ropes, team)?)
            }
        };
        let Capabilities { sequences_max, context_tokens_max, .. } = capabilities;
        Ok(Self {
            tables: BlockTables::new(sequences_max, block_ids, context_tokens_max),
            interrupt: options.interrupt.clone(),
            met: vec![false; sequences_max],
            ropes,
            executor,
            fingerprint,
            kv_shape,
            capabilities,
            model,
        })
    }

    /// Everything that can be wrong with a batch, before anything changes.
    fn check(&mut self, batch: &Batch) -> Result<(), StepError> {
        let Self { tables, capabilities, met, model, .. } = self;
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

/// Forgets what a pass that failed may have left.
fn take_back(tables: &mut BlockTables, batch: &Batch) {
    for span in batch.spans() {
        // A span that was not reached holds its tokens still, and no more.
        tables.truncate(span.seq, span.position).ok();
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
            take_back(&mut self.tables, batch);
            return Err(error);
        }
        let Self { model, tables, ropes, interrupt, executor, .. } = self;
        match executor.forward(batch, Context { model, tables, ropes, interrupt }) {
            Ok(logits) => Ok(Logits::new(logits, n_vocab).into()),
            Err(error) => {
                take_back(tables, batch);
                Err(error)
            }
        }
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
        let header = SavedHeader::new(self.fingerprint, &self.kv_shape, len);
        self.executor.save(&header, self.tables.blocks(seq), len, to)
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.tables.check_empty(seq)?;
        let header = SavedHeader::read(from, &SavedHeader::new(self.fingerprint, &self.kv_shape, 0))?;
        let context = self.capabilities.context_tokens_max;
        let len = usize::try_from(header.tokens).ok().filter(|len| *len <= context).ok_or_else(|| {
            KvError::Format(format!("{} tokens, over the session's context of {context}", header.tokens))
        })?;
        self.tables.fill(seq, len)?;
        let restored = self.executor.restore(&header, self.tables.blocks(seq), len, from);
        if restored.is_err() {
            self.release(seq);
        }
        restored.map(|()| len)
    }
}

/// Capabilities of a session by `options`, of a model trained for `n_ctx` tokens, within the bytes that its
/// KV may take.
fn plan(n_ctx: usize, kv: &KvShape, options: &SessionOptions) -> Result<Capabilities, LoadError> {
    let positive = |option: &'static str, value: usize, max: usize| {
        let problem = format!("{value}, but 1 to {max} is allowed");
        if (1..=max).contains(&value) { Ok(value) } else { Err(LoadError::Option { option, problem }) }
    };
    let sequences_max = positive("sequences_max", options.sequences_max, SEQUENCES_MAX)?;
    let batch_tokens_max = positive("batch_tokens_max", options.batch_tokens_max, 1 << 20)?;
    let context = match options.context_tokens_max {
        Some(context) => positive("context_tokens_max", context, usize::MAX)?.min(n_ctx),
        None => n_ctx,
    };
    let memory =
        |needed: u64| LoadError::Memory { what: "the KV cache", needed, available: options.kv_bytes_max };
    let block_bytes = kv.block_bytes().ok_or_else(|| memory(u64::MAX))?;
    let blocks_max = usize::try_from(options.kv_bytes_max / block_bytes).unwrap_or(usize::MAX);
    let bytes = |blocks: usize| block_bytes.saturating_mul(blocks as u64);
    let blocks = match options.kv_tokens_max {
        Some(tokens) => positive("kv_tokens_max", tokens, usize::MAX)?.div_ceil(BLOCK_TOKENS),
        None => {
            let one = context.div_ceil(BLOCK_TOKENS);
            let wanted = one.saturating_mul(sequences_max).min(blocks_max);
            // A context that was asked for has to fit; the model's own need not.
            if options.context_tokens_max.is_some() { wanted.max(one) } else { wanted.max(1) }
        }
    };
    if blocks > blocks_max {
        return Err(memory(bytes(blocks)));
    }
    let kv_tokens_max = blocks.saturating_mul(BLOCK_TOKENS);
    let sequences = sequences_max.saturating_add(options.sequences_idle_max).min(SEQUENCES_MAX);
    Ok(Capabilities::new(sequences, context.min(kv_tokens_max))
        .kv_tokens(kv_tokens_max)
        .block_tokens(BLOCK_TOKENS)
        .batch_tokens(batch_tokens_max)
        .fork(true)
        .truncate(true)
        .save(true)
        .batch_invariant(true))
}
