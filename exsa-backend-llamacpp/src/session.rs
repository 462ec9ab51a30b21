//! Sessions: the KV of several sequences, and forward passes over ragged batches.

mod streams;

use crate::cells::Cells;
use crate::ffi::{self, Context, Decoded};
use crate::log;
use crate::options::{ContextOptions, FlashAttention};
use crate::saved;
use crate::session_plan::{ModelKind, SessionPlan};
use crate::stream_map::StreamMap;
use exsa_core::SeqId;
use exsa_core::backend::{
    Capabilities, Fingerprint, Interrupt, Output, Pooling, SavedKv, Session, SessionOptions,
};
use exsa_core::batch::{Batch, Embeddings, Logits, Span, SpanAdapter};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use std::io::{Read, Write};
use std::sync::Arc;

/// Architectures with an index beside their attention cache: a saved state lists the streams twice.
const SEVERAL_CACHES: [&str; 8] =
    ["minimax-m3", "glm-dsa", "glm5-next", "deepseek32", "deepseek4", "hy_v4", "dots3note", "qwen4exp"];

/// Name of this backend in saved KV.
const SAVED_BY: &str = "llamacpp";

/// A session of a model.
pub(crate) struct LlamaCppSession {
    context: Context,
    capabilities: Capabilities,
    interrupt: Interrupt,
    cells: Cells,
    /// Stream of each sequence; in one pool, a sequence's own number.
    streams: StreamMap,
    unified: bool,
    /// Whether the streams of the last batch had gaps.
    had_gaps: bool,
    /// Maximum number of tokens moved to close a gap.
    move_tokens_max: usize,
    /// Number of streams that a saved state lists. It is reduced to one stream, so that a session of any
    /// layout can restore it. `None` for states of unknown layout.
    state_streams: Option<usize>,
    n_vocab: usize,
    kv_bytes_per_token: u64,
    fingerprint: Fingerprint,
    /// Memory of [`Batch::validate`].
    seen: Vec<bool>,
    /// Logits in the order of the batch, if llama.cpp's order was another.
    rows: Vec<f32>,
    /// Embeddings of the last [`Session::embed`].
    embeddings: Vec<f32>,
    embedding_width: usize,
}

impl LlamaCppSession {
    /// A session of `model`.
    pub fn new(
        model: Arc<ffi::Model>,
        info: &ModelInfo,
        fingerprint: Fingerprint,
        pooling: Option<Pooling>,
        context_options: &ContextOptions,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let kind = ModelKind::of(&model, pooling);
        let ModelKind { windowed, recurrent, .. } = kind;
        let plan = SessionPlan::new(info, kind, context_options, options)?;
        // A recurrent state cannot be truncated. In layers with a sliding window, llama.cpp reuses cells
        // before the window when it looks for free cells, but a truncated sequence would need them. Streams
        // of full length are an exception: there it never looks before the window.
        let cuttable = !recurrent && (!windowed || (context_options.swa_full && !plan.unified));
        let settings = plan.context_settings(context_options, options);
        let embedding_width = pooling.map_or(0, |pooling| model.embedding_width(pooling));
        let context = Context::new(model, &settings)?;
        let (cells, cells_of_one, batch_tokens) = context.sizes();
        let mut fingerprint = fingerprint;
        fingerprint.update(plan.kv_types.keys.name().as_bytes());
        fingerprint.update(plan.kv_types.values.name().as_bytes());
        // Without flash attention the values are stored transposed.
        fingerprint.update(&[u8::from(context_options.flash_attention == FlashAttention::Off)]);
        let streams = if plan.unified { 1 } else { plan.sequences };
        let plain = !windowed && !recurrent && !SEVERAL_CACHES.contains(&info.architecture.as_str());
        if !plain {
            fingerprint.update(&streams.to_le_bytes());
        }
        let kv_tokens = plan.kv_tokens.min(cells);
        let cuttable = cuttable && context.has_memory();
        // A batch with non-causal attention cannot be split.
        let batch_tokens =
            if context.is_causal() { batch_tokens } else { settings.ubatch_tokens.min(batch_tokens) };
        let capabilities = Capabilities::new(plan.sequences, plan.context_tokens.min(cells_of_one))
            .kv_tokens(kv_tokens)
            .batch_tokens(batch_tokens)
            .fork(cuttable)
            .truncate(cuttable)
            // A saved sliding window only holds the window, and a sequence restored from it cannot be
            // truncated.
            .save(context.has_memory() && !(windowed && cuttable))
            .embed(pooling)
            // An encoder has no KV cache, and its only output is embeddings.
            .generate(context.has_memory())
            // llama.cpp's adapters apply to a context, and therefore to the whole pass.
            .adapters(options.span_adapters_max, 1)
            // The order of sums depends on the shape of the batch.
            .batch_invariant(false);
        let kv_bytes_per_token = plan.kv_types.bytes(info.kv_bytes_per_token, 1);
        let count = u32::try_from(kv_tokens).unwrap_or(u32::MAX);
        Ok(Self {
            cells: Cells::new(plan.sequences, count),
            streams: StreamMap::new(plan.sequences),
            seen: vec![false; plan.sequences],
            had_gaps: false,
            // A move saves one pass over the weights and costs about as much as the bytes it copies.
            move_tokens_max: usize::try_from(info.weights_bytes / kv_bytes_per_token.max(1)).unwrap_or(0),
            interrupt: options.interrupt.clone(),
            n_vocab: info.n_vocab,
            kv_bytes_per_token,
            unified: plan.unified,
            state_streams: plain.then_some(streams),
            fingerprint,
            rows: Vec::new(),
            embeddings: Vec::new(),
            embedding_width,
            capabilities,
            context,
        })
    }

    /// Validates a batch before anything changes.
    fn check(&mut self, batch: &Batch) -> Result<(), StepError> {
        let Self { cells, capabilities, seen, n_vocab, .. } = self;
        batch.validate(capabilities, *n_vocab, seen, |seq| cells.len(seq))?;
        let adapters = adapters_of(batch);
        if let Some(span) = batch.spans().find(|span| span.adapters != adapters) {
            let problem = "its adapters are not those of the first span; a batch takes one set".to_owned();
            return Err(StepError::Sequence { seq: span.seq, problem });
        }
        let free = cells.free();
        if batch.len() > free {
            return Err(StepError::KvFull { needed: batch.len(), free });
        }
        Ok(())
    }

    fn run(&mut self, batch: &Batch) -> Result<(), StepError> {
        if !self.unified && self.close_gap(batch) {
            // A failed move may have emptied a sequence of the batch.
            self.check(batch)?;
        }
        for span in batch.spans() {
            self.assign_stream(span.seq);
            self.cells.append(span.seq, span.len());
        }
        let mut spans: Vec<_> = batch.spans().map(|span| (self.streams.stream_of(span.seq), span)).collect();
        if !self.unified {
            // llama.cpp computes adjacent streams in one pass.
            spans.sort_by_key(|(stream, _)| *stream);
        }
        let (decoded, errors) = log::with_errors(|| self.context.decode(&spans, adapters_of(batch)));
        match decoded {
            Decoded::Done => Ok(()),
            Decoded::Interrupted => Err(StepError::Interrupted),
            Decoded::Full => Err(StepError::KvFull { needed: batch.len(), free: self.cells.free() }),
            Decoded::NoAdapter(id) => {
                let seq = batch.spans().next().map_or(SeqId(0), |span| span.seq);
                Err(StepError::Sequence { seq, problem: format!("adapter {} is not loaded", id.0) })
            }
            Decoded::Panicked(message) => {
                Err(StepError::Backend(format!("the session's interrupt panicked: {message}")))
            }
            Decoded::Failed(code) => {
                Err(StepError::Backend(format!("llama.cpp failed with {code}: {errors}")))
            }
        }
    }

    /// Undoes what a failed pass did to the sequence of `span`.
    fn roll_back(&mut self, span: Span<'_>) {
        let len = if self.capabilities.truncate { span.position } else { 0 };
        if self.context.truncate(self.streams.stream_of(span.seq), len) {
            self.cells.truncate(span.seq, len);
        } else {
            self.release(span.seq);
        }
    }

    /// Current memory of the session and its model.
    #[cfg(test)]
    pub fn memory_use(&self) -> ffi::MemoryUse {
        self.context.memory_use()
    }

    fn unsupported<T>(&self, has: bool, what: &'static str, work: T) -> Result<T, KvError> {
        if has { Ok(work) } else { Err(KvError::Unsupported(what)) }
    }
}

impl Session for LlamaCppSession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn kv_bytes_per_token(&self) -> Option<u64> {
        Some(self.kv_bytes_per_token)
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        if !self.context.has_memory() {
            return Err(StepError::Unsupported("forward"));
        }
        self.check(batch)?;
        if batch.is_empty() {
            return Ok(Logits::new(&[], self.n_vocab).into());
        }
        self.context.output_embeddings(false);
        if let Err(error) = self.run(batch) {
            batch.spans().for_each(|span| self.roll_back(span));
            return Err(error);
        }
        let logits = self.context.logits(batch.rows());
        if logits.len() != batch.rows() * self.n_vocab {
            return Err(StepError::Backend("this model gives no logits".to_owned()));
        }
        let stream = |span: Span<'_>| self.streams.stream_of(span.seq);
        if self.unified || batch.spans().is_sorted_by_key(stream) {
            return Ok(Logits::new(logits, self.n_vocab).into());
        }
        self.rows.clear();
        for span in batch.spans() {
            // Rows of the streams before it. Quadratic, but a batch has few spans.
            let before: usize =
                batch.spans().filter(|other| stream(*other) < stream(span)).map(|other| other.rows).sum();
            let values = before * self.n_vocab..(before + span.rows) * self.n_vocab;
            self.rows.extend_from_slice(&logits[values]);
        }
        Ok(Logits::new(&self.rows, self.n_vocab).into())
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        if self.capabilities.embed.is_none() {
            return Err(StepError::Unsupported("embed"));
        }
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        self.check(batch)?;
        if let Some(span) = batch.spans().find(|span| span.position > 0) {
            return Err(StepError::Sequence { seq: span.seq, problem: "it is not empty".to_owned() });
        }
        self.embeddings.clear();
        if !batch.is_empty() {
            self.context.output_embeddings(true);
            let result = self.run(batch);
            for span in batch.spans() {
                let stream = self.streams.stream_of(span.seq);
                self.embeddings.extend_from_slice(self.context.embedding(stream, self.embedding_width));
                self.release(span.seq);
            }
            result?;
        }
        if self.embeddings.len() != batch.span_count() * self.embedding_width {
            return Err(StepError::Backend("llama.cpp returned no embeddings".to_owned()));
        }
        Ok(Embeddings::new(&self.embeddings, self.embedding_width))
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.unsupported(self.capabilities.fork, "fork", ())?;
        self.cells.check_len(from, len)?;
        self.cells.check_empty(to)?;
        if len == 0 {
            return Ok(());
        }
        self.assign_stream(to);
        let (source, target) = (self.streams.stream_of(from), self.streams.stream_of(to));
        let done = if self.unified {
            self.context.share(source, target, len);
            true
        } else {
            self.copy_stream(source, target) && self.context.truncate(target, len)
        };
        if !done {
            self.context.truncate(target, 0);
            return Err(KvError::Backend(format!("llama.cpp cannot copy {from}")));
        }
        self.cells.share(from, to, len);
        Ok(())
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.cells.check_len(seq, len)?;
        if self.cells.len(seq) == Some(len) {
            return Ok(());
        }
        self.unsupported(self.capabilities.truncate || len == 0, "truncate", ())?;
        if !self.context.truncate(self.streams.stream_of(seq), len) {
            return Err(KvError::Backend(format!("llama.cpp cannot truncate {seq} to {len} tokens")));
        }
        self.cells.truncate(seq, len);
        Ok(())
    }

    fn release(&mut self, seq: SeqId) {
        if self.cells.len(seq).is_some() {
            self.context.truncate(self.streams.stream_of(seq), 0);
            self.cells.truncate(seq, 0);
        }
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        self.unsupported(self.capabilities.save, "save", ())?;
        let tokens = self.cells.existing_len(seq)?;
        let stream = self.streams.stream_of(seq);
        let state = match self.state_streams {
            _ if tokens == 0 => Some(Vec::new()),
            Some(streams) => self
                .context
                .state(stream)
                .and_then(|state| saved::to_one_stream(&state, stream as usize, streams)),
            None => self.context.state(stream),
        };
        let state = state.ok_or_else(|| KvError::Backend("llama.cpp returned no state".to_owned()))?;
        SavedKv::new(SAVED_BY, self.fingerprint, tokens, state.len())
            .write(to, |to| Ok(to.write_all(&state)?))
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.unsupported(self.capabilities.save, "restore", ())?;
        self.cells.check_empty(seq)?;
        let expected = SavedKv::new(SAVED_BY, self.fingerprint, 0, 0);
        let context_tokens = self.capabilities.context_tokens_max;
        // Damage is detected before llama.cpp parses the state.
        let (tokens, state) = SavedKv::read(from, &expected, context_tokens, |header, from| {
            // Memory grows with the bytes that arrive, not with the length in the header.
            let mut state = Vec::new();
            from.take(header.payload_bytes).read_to_end(&mut state)?;
            Ok((header.tokens, state))
        })?;
        let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
        let free = self.cells.free();
        if tokens > free {
            return Err(KvError::Full { needed: tokens, free });
        }
        if tokens == 0 {
            return Ok(0);
        }
        let state = match self.state_streams {
            Some(streams) => saved::from_one_stream(&state, streams),
            None => Some(state),
        };
        let state = state.ok_or_else(|| KvError::Format("it is not the state of one sequence".to_owned()))?;
        self.assign_stream(seq);
        let stream = self.streams.stream_of(seq);
        let (restored, errors) = log::with_errors(|| self.context.set_state(stream, &state));
        if !restored || self.context.held(stream) != tokens {
            self.context.truncate(stream, 0);
            return Err(KvError::Format(format!("llama.cpp refuses it: {errors}")));
        }
        self.cells.append(seq, tokens);
        Ok(tokens)
    }
}

/// The adapters of a batch, whose spans all have the same.
fn adapters_of(batch: &Batch) -> &[SpanAdapter] {
    batch.spans().next().map(|span| span.adapters).unwrap_or_default()
}
