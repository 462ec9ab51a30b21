//! Sessions: the KV of several sequences, and forward passes over ragged batches.

use crate::ffi::{self, Context, ContextSettings, Decoded};
use crate::fingerprint::Fingerprint;
use crate::kv::Cells;
use crate::log;
use crate::options::{ContextOptions, FlashAttention};
use crate::places::{Places, plan_move};
use crate::plan::{ModelKind, Plan};
use crate::saved::{self, Saved};
use exsa_core::SeqId;
use exsa_core::backend::{Capabilities, Interrupt, Pooling, Session, SessionOptions};
use exsa_core::batch::{Batch, Embeddings, Logits, Span};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use std::io::{Read, Write};
use std::sync::Arc;

/// Architectures with an index beside their attention cache: their states list streams twice.
const SEVERAL_CACHES: [&str; 8] =
    ["minimax-m3", "glm-dsa", "glm5-next", "deepseek32", "deepseek4", "hy_v4", "dots3note", "qwen4exp"];

/// A session of a model.
pub(crate) struct LlamaCppSession {
    context: Context,
    capabilities: Capabilities,
    interrupt: Interrupt,
    cells: Cells,
    /// The stream of each sequence, which in one pool is its number.
    places: Places,
    unified: bool,
    /// Whether the streams of the last batch had gaps, and how many tokens may be moved to close one.
    had_gaps: bool,
    move_tokens_max: usize,
    /// Streams that a saved state is taken out of, so that it goes into sessions of any layout; `None` where its layout is not known.
    streams: Option<usize>,
    n_vocab: usize,
    fingerprint: Fingerprint,
    /// Rows of logits in the batch's order, where llama.cpp had them in another.
    rows: Vec<f32>,
    /// Vectors of the last [`Session::embed`].
    vectors: Vec<f32>,
    vector_width: usize,
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
        let (windowed, recurrent) = (model.window() > 0, model.is_recurrent());
        let kind = ModelKind { windowed, recurrent, pooled: pooling.is_some(), on_cpu: model.is_on_cpu() };
        let plan = Plan::new(info, kind, context_options, options)?;
        // A recurrent state cannot be cut. Of layers with a window, llama.cpp gives away what lies before the window wherever
        // it looks for room, so that a cut would need what is gone, but for streams of full length, where it never looks there.
        let cuttable = !recurrent && (!windowed || (context_options.swa_full && !plan.unified));
        let settings = ContextSettings {
            options: context_options,
            cells: plan.cells,
            sequences: plan.sequences,
            unified: plan.unified,
            batch_tokens: plan.batch_tokens,
            // A text's vector is made in one pass.
            ubatch_tokens: if pooling.is_some() { plan.batch_tokens } else { plan.ubatch_tokens },
            pooling,
            decode_threads: plan.decode_threads,
            prefill_threads: plan.prefill_threads,
            interrupt: options.interrupt.clone(),
        };
        let vector_width = pooling.map_or(0, |pooling| model.vector_width(pooling));
        let context = Context::new(model, &settings)?;
        let (cells, cells_of_one, batch_tokens) = context.sizes();
        let mut fingerprint = fingerprint;
        fingerprint
            .update(format!("{:?} {:?}", context_options.key_type, context_options.value_type).as_bytes());
        // Without flash attention values lie the other way round.
        fingerprint.update(&[u8::from(context_options.flash_attention == FlashAttention::Off)]);
        let streams = if plan.unified { 1 } else { plan.sequences };
        let plain = !windowed && !recurrent && !SEVERAL_CACHES.contains(&info.architecture.as_str());
        if !plain {
            fingerprint.update(&streams.to_le_bytes());
        }
        let kv_tokens = plan.kv_tokens.min(cells);
        let cuttable = cuttable && context.has_memory();
        let capabilities = Capabilities {
            kv_tokens_max: kv_tokens,
            block_tokens: 1,
            sequences_max: plan.sequences,
            context_tokens_max: plan.context_tokens.min(cells_of_one),
            // Where tokens see those after them, a batch cannot be cut.
            batch_tokens_max: if context.is_causal() {
                batch_tokens
            } else {
                settings.ubatch_tokens.min(batch_tokens)
            },
            fork: cuttable,
            truncate: cuttable,
            // What is saved of a window is the window: a sequence that may be cut further back must not come from there.
            save: context.has_memory() && !(windowed && cuttable),
            embed: pooling,
        };
        let count = u32::try_from(kv_tokens).unwrap_or(u32::MAX);
        Ok(Self {
            cells: Cells::new(plan.sequences, count),
            places: Places::new(plan.sequences),
            had_gaps: false,
            // A move is worth about as much as the pass over the weights that it saves.
            move_tokens_max: usize::try_from(info.weights_bytes / info.kv_bytes_per_token.max(1))
                .unwrap_or(0),
            interrupt: options.interrupt.clone(),
            n_vocab: info.n_vocab,
            unified: plan.unified,
            streams: plain.then_some(streams),
            fingerprint,
            rows: Vec::new(),
            vectors: Vec::new(),
            vector_width,
            capabilities,
            context,
        })
    }

    /// Everything that can be wrong with a batch, before anything changes.
    fn check(&self, batch: &Batch) -> Result<(), StepError> {
        let limit = self.capabilities.batch_tokens_max;
        if batch.len() > limit {
            return Err(StepError::BatchTooLarge { tokens: batch.len(), limit });
        }
        let n_vocab = self.n_vocab;
        let mut seen = vec![false; self.capabilities.sequences_max];
        for (span, tokens) in batch.iter() {
            let Span { seq, position, len, .. } = span;
            let problem = |problem: String| Err(StepError::Sequence { seq, problem });
            let Some(held) = self.cells.len(seq) else {
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
        let free = self.cells.free();
        if batch.len() > free {
            return Err(StepError::KvFull { needed: batch.len(), free });
        }
        Ok(())
    }

    fn run(&mut self, batch: &Batch) -> Result<(), StepError> {
        if !self.unified && self.close_gap(batch) {
            // If a move went wrong, the pass must not begin.
            self.check(batch)?;
        }
        for span in batch.spans() {
            self.settle(span.seq);
            self.cells.append(span.seq, span.len);
        }
        let mut spans: Vec<_> =
            batch.iter().map(|(span, tokens)| (self.places.of(span.seq), span, tokens)).collect();
        if !self.unified {
            // llama.cpp computes streams in one pass where they follow each other.
            spans.sort_by_key(|(place, ..)| *place);
        }
        let (decoded, errors) = log::with_errors(|| self.context.decode(&spans));
        match decoded {
            Decoded::Done => Ok(()),
            Decoded::Interrupted => Err(StepError::Interrupted),
            Decoded::Full => Err(StepError::KvFull { needed: batch.len(), free: self.cells.free() }),
            Decoded::Failed(code) => {
                Err(StepError::Backend(format!("llama.cpp failed with {code}: {errors}")))
            }
        }
    }

    /// Takes back what a failed pass left of `span`.
    fn roll_back(&mut self, span: &Span) {
        let len = if self.capabilities.truncate { span.position } else { 0 };
        if self.context.truncate(self.places.of(span.seq), len) {
            self.cells.truncate(span.seq, len);
        } else {
            self.release(span.seq);
        }
    }

    /// Gives `seq` its stream if it is empty.
    fn settle(&mut self, seq: SeqId) {
        let Self { cells, places, .. } = self;
        if !self.unified && cells.len(seq) == Some(0) {
            places.settle(seq, |seq| cells.len(seq) == Some(0));
        }
    }

    /// Moves a sequence of `batch` so that the streams have fewer gaps, if the last batch had gaps too: one that comes and goes is
    /// not worth a move. Returns whether it tried.
    fn close_gap(&mut self, batch: &Batch) -> bool {
        let held = |stream| self.cells.len(self.places.at(stream)).unwrap_or(0);
        let mut streams: Vec<u32> = batch.spans().iter().map(|span| self.places.of(span.seq)).collect();
        streams.retain(|stream| held(*stream) > 0);
        streams.sort_unstable();
        let planned = plan_move(&streams, self.capabilities.sequences_max, |stream| held(stream) == 0);
        let had_gaps = std::mem::replace(&mut self.had_gaps, planned.is_some());
        let Some((from, to)) = planned.filter(|_| had_gaps && self.capabilities.save) else { return false };
        let worth = held(from) + held(to) <= self.move_tokens_max;
        if worth {
            self.exchange(from, to);
        }
        worth
    }

    /// Lets the sequences of two streams change places, by way of host memory. If llama.cpp refuses, all stays as it was; a sequence
    /// that it does not take back either is empty then, so that passes with it are refused.
    fn exchange(&mut self, from: u32, to: u32) {
        let sequences = [from, to].map(|stream| self.places.at(stream));
        let mut states = Vec::new();
        for (stream, seq) in [from, to].into_iter().zip(sequences) {
            let held = self.cells.len(seq).unwrap_or(0);
            let Some(state) = (if held > 0 { self.context.state(stream) } else { Some(Vec::new()) }) else {
                return;
            };
            states.push(state);
        }
        let context = &mut self.context;
        if context.replace_state(to, &states[0]) && context.replace_state(from, &states[1]) {
            return self.places.swap(from, to);
        }
        for ((stream, seq), state) in [from, to].into_iter().zip(sequences).zip(&states) {
            if !self.context.replace_state(stream, state) {
                self.context.truncate(stream, 0);
                self.cells.truncate(seq, 0);
            }
        }
    }

    /// Copies `from` to `to`, each in a stream of its own; `false` if llama.cpp refuses.
    fn copy(&mut self, from: u32, to: u32) -> bool {
        if self.capabilities.save {
            // At once, and no more than the sequence holds.
            return self.context.state(from).is_some_and(|state| self.context.set_state(to, &state));
        }
        // The whole stream, when the next pass begins. Only saving and restoring would see that it is not there yet.
        self.context.copy_stream(from, to);
        true
    }

    fn unsupported<T>(&self, has: bool, what: &'static str, work: T) -> Result<T, KvError> {
        if has { Ok(work) } else { Err(KvError::Unsupported(what)) }
    }
}

impl Session for LlamaCppSession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, StepError> {
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        if !self.context.has_memory() {
            return Err(StepError::Unsupported("forward"));
        }
        self.check(batch)?;
        if batch.is_empty() {
            return Ok(Logits::new(&[], self.n_vocab));
        }
        self.context.give_vectors(false);
        if let Err(error) = self.run(batch) {
            batch.spans().iter().for_each(|span| self.roll_back(span));
            return Err(error);
        }
        let logits = self.context.logits(batch.rows());
        if logits.len() != batch.rows() * self.n_vocab {
            return Err(StepError::Backend("this model gives no logits".to_owned()));
        }
        let place = |span: &Span| self.places.of(span.seq);
        if self.unified || batch.spans().is_sorted_by_key(place) {
            return Ok(Logits::new(logits, self.n_vocab));
        }
        self.rows.clear();
        for span in batch.spans() {
            // Rows of the sequences before it: a batch has few spans.
            let before: usize =
                batch.spans().iter().filter(|other| place(other) < place(span)).map(|other| other.rows).sum();
            let values = before * self.n_vocab..(before + span.rows) * self.n_vocab;
            self.rows.extend_from_slice(&logits[values]);
        }
        Ok(Logits::new(&self.rows, self.n_vocab))
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        if self.capabilities.embed.is_none() {
            return Err(StepError::Unsupported("embed"));
        }
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        self.check(batch)?;
        if let Some(span) = batch.spans().iter().find(|span| span.position > 0) {
            return Err(StepError::Sequence { seq: span.seq, problem: "it is not empty".to_owned() });
        }
        self.vectors.clear();
        if !batch.is_empty() {
            self.context.give_vectors(true);
            let result = self.run(batch);
            for span in batch.spans() {
                self.vectors
                    .extend_from_slice(self.context.vector(self.places.of(span.seq), self.vector_width));
                self.release(span.seq);
            }
            result?;
        }
        if self.vectors.len() != batch.spans().len() * self.vector_width {
            return Err(StepError::Backend("llama.cpp gave no vectors".to_owned()));
        }
        Ok(Embeddings::new(&self.vectors, self.vector_width))
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.unsupported(self.capabilities.fork, "fork", ())?;
        self.cells.check_len(from, len)?;
        self.cells.check_empty(to)?;
        if len == 0 {
            return Ok(());
        }
        self.settle(to);
        let places = (self.places.of(from), self.places.of(to));
        let done = if self.unified {
            self.context.share(places.0, places.1, len);
            true
        } else {
            self.copy(places.0, places.1) && self.context.truncate(places.1, len)
        };
        if !done {
            self.context.truncate(places.1, 0);
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
        if !self.context.truncate(self.places.of(seq), len) {
            return Err(KvError::Backend(format!("llama.cpp cannot cut {seq} to {len} tokens")));
        }
        self.cells.truncate(seq, len);
        Ok(())
    }

    fn release(&mut self, seq: SeqId) {
        if self.cells.len(seq).is_some() {
            self.context.truncate(self.places.of(seq), 0);
            self.cells.truncate(seq, 0);
        }
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        self.unsupported(self.capabilities.save, "save", ())?;
        let tokens = self.cells.existing_len(seq)?;
        let place = self.places.of(seq);
        let state = match self.streams {
            _ if tokens == 0 => Some(Vec::new()),
            Some(streams) => self
                .context
                .state(place)
                .and_then(|state| saved::to_one_stream(&state, place as usize, streams)),
            None => self.context.state(place),
        };
        let state = state.ok_or_else(|| KvError::Backend("llama.cpp gave no state".to_owned()))?;
        Saved { tokens: tokens as u64, state }.write(self.fingerprint, to)
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.unsupported(self.capabilities.save, "restore", ())?;
        self.cells.check_empty(seq)?;
        let saved = Saved::read(self.fingerprint, self.capabilities.context_tokens_max, from)?;
        let tokens = usize::try_from(saved.tokens).unwrap_or(usize::MAX);
        let free = self.cells.free();
        if tokens > free {
            return Err(KvError::Full { needed: tokens, free });
        }
        if tokens == 0 {
            return Ok(0);
        }
        let state = match self.streams {
            Some(streams) => saved::from_one_stream(&saved.state, streams),
            None => Some(saved.state),
        };
        let state = state.ok_or_else(|| KvError::Format("it is not the state of one sequence".to_owned()))?;
        self.settle(seq);
        let place = self.places.of(seq);
        let (restored, errors) = log::with_errors(|| self.context.set_state(place, &state));
        if !restored || self.context.held(place) != tokens {
            self.context.truncate(place, 0);
            return Err(KvError::Format(format!("llama.cpp refuses it: {errors}")));
        }
        self.cells.append(seq, tokens);
        Ok(tokens)
    }
}
