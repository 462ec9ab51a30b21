//! Sessions: the KV of several sequences, and forward passes over ragged batches.

use crate::compute::Compute;
use crate::config::{Divisors, RopeConfig};
use crate::error::CandleError;
use crate::kv::{BLOCK_TOKENS, BlockTables, Fingerprint, KvShape, KvStore, SavedHeader, slot_runs};
use crate::layers::attention::{Placement, Rows};
use crate::layers::host;
use crate::layers::paged::PagedSpan;
use crate::layers::rope::Rope;
use crate::load::LoadedModel;
use crate::transformer::Step;
use candle_core::{DType, Device};
use exsa_core::SeqId;
use exsa_core::backend::{Capabilities, Interrupt, Session, SessionOptions};
use exsa_core::batch::{Batch, Logits, Span};
use exsa_core::error::{KvError, LoadError, StepError};
use std::io::{Read, Write};
use std::sync::Arc;

/// Most sequences that a session can be asked for.
const SEQUENCES_MAX: usize = 1 << 16;

/// A session of a [`LoadedModel`].
pub(crate) struct CandleSession {
    model: Arc<LoadedModel>,
    device: Device,
    capabilities: Capabilities,
    interrupt: Interrupt,
    rope: Rope,
    rope_windowed: Rope,
    tables: BlockTables,
    kv_shape: KvShape,
    kv: KvStore,
    fingerprint: Fingerprint,
    logits: Vec<f32>,
    compute: Compute,
}

impl CandleSession {
    /// A session of `model` on `device`, where its weights are.
    pub fn new(
        model: Arc<LoadedModel>,
        device: Device,
        dtype: DType,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let config = &model.config;
        let kv_shape = KvShape {
            n_layer: config.n_layer,
            n_head_kv: config.n_head_kv,
            head_dim: config.head_dim,
            dtype,
        };
        let capabilities = plan(config.n_ctx, &kv_shape, options)?;
        let n_blocks = capabilities.kv_tokens_max / BLOCK_TOKENS;
        let block_ids = u32::try_from(n_blocks).map_err(|_| LoadError::Option {
            option: "kv_tokens_max",
            problem: format!("{n_blocks} blocks, but {} can be told apart", u32::MAX),
        })?;
        let long = capabilities.context_tokens_max > config.rope.original_context;
        let divisors = &model.divisors;
        let by_length = if long { &divisors.long } else { &divisors.short };
        let divisors = divisors.all.as_deref().or(by_length.as_deref());
        let pairs = config.architecture.rope_pairs;
        let rope = |config: &RopeConfig| {
            Rope::new(config, pairs, divisors.filter(|_| config.divisors != Divisors::Never))
        };
        let mut fingerprint = model.fingerprint;
        fingerprint.update(&[u8::from(long)]);
        Ok(Self {
            rope: rope(&config.rope),
            rope_windowed: rope(&config.rope_windowed),
            kv: KvStore::new(&kv_shape, n_blocks, &device).load()?,
            tables: BlockTables::new(capabilities.sequences_max, block_ids),
            interrupt: options.interrupt.clone(),
            logits: Vec::new(),
            compute: Compute::new(&options.threads)?,
            fingerprint,
            kv_shape,
            capabilities,
            device,
            model,
        })
    }

    /// Everything that can be wrong with a batch, before anything changes.
    fn check(&self, batch: &Batch) -> Result<(), StepError> {
        let limit = self.capabilities.batch_tokens_max;
        if batch.len() > limit {
            return Err(StepError::BatchTooLarge { tokens: batch.len(), limit });
        }
        let n_vocab = self.model.n_vocab;
        let mut seen = vec![false; self.capabilities.sequences_max];
        for (span, tokens) in batch.iter() {
            let Span { seq, position, len, .. } = span;
            let problem = |problem: String| Err(StepError::Sequence { seq, problem });
            let Some(held) = self.tables.len(seq) else {
                let max = self.capabilities.sequences_max;
                return problem(format!("the id is not below the session's sequences_max of {max}"));
            };
            if std::mem::replace(&mut seen[seq.index()], true) {
                return problem("it has two spans in one batch".to_owned());
            }
            if position != held {
                return Err(StepError::Position { seq, position, held });
            }
            let context = self.capabilities.context_tokens_max;
            if len > context - held.min(context) {
                return problem(format!("{held} tokens and {len} more are over its context of {context}"));
            }
            if let Some(&token) = tokens.iter().find(|token| **token as usize >= n_vocab) {
                return Err(StepError::InvalidToken { seq, token, n_vocab });
            }
        }
        self.tables.check_room(batch.spans())
    }

    fn run(&mut self, batch: &Batch) -> Result<(), StepError> {
        for span in batch.spans() {
            if let Some(copy) = self.tables.append(span.seq, span.len)? {
                self.kv.copy(&copy).step()?;
            }
        }
        let mut placement = Placement { spans: Vec::with_capacity(batch.spans().len()), runs: Vec::new() };
        let mut positions = Vec::with_capacity(batch.len());
        for span in batch.spans() {
            let row = positions.len();
            let blocks = self.tables.blocks(span.seq);
            slot_runs(span, row, blocks, &mut placement.runs);
            placement.spans.push(PagedSpan { row, len: span.len, position: span.position, blocks });
            positions.extend(span.position..span.position + span.len);
        }
        let rows = batch.row_tokens().map(|row| row as u32).collect();
        let step = Step {
            tokens: batch.tokens(),
            placement,
            rope: self.rope.table(&positions, &self.device).step()?,
            rope_windowed: self.rope_windowed.table(&positions, &self.device).step()?,
            rows: Rows::new(rows, batch.len()),
        };
        let logits = self.model.transformer.forward(&step, &self.kv, &self.interrupt, &self.compute)?;
        if let Some(logits) = logits {
            let logits = logits.to_device(&Device::Cpu).step()?;
            host::read(&logits, |values: &[f32]| self.logits.extend_from_slice(values)).step()?;
        }
        Ok(())
    }
}

impl Session for CandleSession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn kv_bytes_per_token(&self) -> Option<u64> {
        self.kv_shape.token_bytes()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, StepError> {
        self.logits.clear();
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        self.check(batch)?;
        if !batch.is_empty()
            && let Err(error) = self.run(batch)
        {
            for span in batch.spans() {
                // A span that was not reached holds its tokens still, and no more.
                self.tables.truncate(span.seq, span.position).ok();
            }
            return Err(error);
        }
        Ok(Logits::new(&self.logits, self.model.n_vocab))
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
        self.kv.save(&header, self.tables.blocks(seq), len, to)
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.tables.check_empty(seq)?;
        let header = SavedHeader::read(from, &SavedHeader::new(self.fingerprint, &self.kv_shape, 0))?;
        let context = self.capabilities.context_tokens_max;
        let len = usize::try_from(header.tokens).ok().filter(|len| *len <= context).ok_or_else(|| {
            KvError::Format(format!("{} tokens, over the session's context of {context}", header.tokens))
        })?;
        self.tables.fill(seq, len)?;
        let restored = self.kv.restore(&header, self.tables.blocks(seq), len, from);
        if restored.is_err() {
            self.release(seq);
        }
        restored.map(|()| len)
    }
}

/// What a session by `options` can do, of a model trained for `n_ctx` tokens, within the bytes that its KV may take.
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
    let block_bytes = kv.token_bytes().and_then(|bytes| bytes.checked_mul(BLOCK_TOKENS as u64));
    let block_bytes = block_bytes.ok_or_else(|| memory(u64::MAX))?;
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
    Ok(Capabilities {
        kv_tokens_max,
        block_tokens: BLOCK_TOKENS,
        sequences_max: sequences_max.saturating_add(options.sequences_idle_max).min(SEQUENCES_MAX),
        context_tokens_max: context.min(kv_tokens_max),
        batch_tokens_max,
        fork: true,
        truncate: true,
        save: true,
        embed: None,
    })
}
