//! Sizes of a session: KV cells and their layout, sequences, batches, threads.

use crate::ffi::{ContextSettings, Model};
use crate::kv_type::KvTypes;
use crate::options::{ContextOptions, KvLayout, RopeOptions};
use exsa_core::backend::{Pooling, SessionOptions, ThreadTeam};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;

/// Maximum number of sequences, llama.cpp's `LLAMA_MAX_SEQ`.
const SEQUENCES_MAX: usize = 256;

/// Maximum number of tokens in a batch.
const BATCH_TOKENS_MAX: usize = 1 << 20;

/// Maximum number of tokens of KV.
const KV_TOKENS_MAX: usize = i32::MAX as usize - CELLS_MULTIPLE;

/// Maximum number of threads, llama.cpp's `GGML_MAX_N_THREADS`.
const THREADS_MAX: usize = 512;

/// Unit in which llama.cpp allocates cells.
const CELLS_MULTIPLE: usize = 256;

/// Default number of tokens computed at a time.
const UBATCH_TOKENS: usize = 512;

/// Properties of a model and its use that determine the sizes of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ModelKind {
    /// Some layers have a sliding window.
    pub windowed: bool,
    /// Some layers have a recurrent state instead of KV.
    pub recurrent: bool,
    /// Pooling of the session's embeddings, if it computes them.
    pub pooling: Option<Pooling>,
    /// No GPU takes part.
    pub on_cpu: bool,
    /// Values of a head of keys, and of a head of values.
    pub head_widths: [usize; 2],
}

impl ModelKind {
    /// The kind of `model`, for a session with `pooling`.
    pub fn of(model: &Model, pooling: Option<Pooling>) -> Self {
        let (windowed, recurrent) = (model.window() > 0, model.is_recurrent());
        let (on_cpu, head_widths) = (model.is_on_cpu(), model.head_widths());
        Self { windowed, recurrent, pooling, on_cpu, head_widths }
    }
}

/// Sizes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionPlan {
    /// One pool of cells for all sequences, instead of one stream of cells per sequence.
    pub unified: bool,
    /// Tokens of KV over all sequences.
    pub kv_tokens: usize,
    /// Cells to allocate, at least `kv_tokens`.
    pub cells: usize,
    pub kv_types: KvTypes,
    pub sequences: usize,
    pub context_tokens: usize,
    pub batch_tokens: usize,
    pub ubatch_tokens: usize,
    pub decode_threads: usize,
    /// With a shared team, at most `decode_threads`, which then are its threads.
    pub prefill_threads: usize,
    /// Pooling of the session's embeddings, if it computes them.
    pub pooling: Option<Pooling>,
}

impl SessionPlan {
    /// Plans a session of the model `info`.
    pub fn new(
        info: &ModelInfo,
        kind: ModelKind,
        context: &ContextOptions,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let kv_types = KvTypes::of(options, context.flash_attention, kind.head_widths)?;
        check_rope(&context.rope)?;
        let sequences = within("sequences_max", options.sequences_max, SEQUENCES_MAX)?;
        let batch_tokens = within("batch_tokens_max", options.batch_tokens_max, BATCH_TOKENS_MAX)?;
        let ubatch = context.ubatch_tokens_max.unwrap_or(UBATCH_TOKENS);
        let ubatch_tokens = within("ubatch_tokens_max", ubatch, BATCH_TOKENS_MAX)?.min(batch_tokens);
        let trained = info.n_ctx.clamp(1, KV_TOKENS_MAX);
        let context_tokens = match options.context_tokens_max {
            Some(tokens) => within("context_tokens_max", tokens, usize::MAX)?.min(trained),
            None => trained,
        };
        let kv = KvSizing { info, kind, context, options, kv_types, sequences, context_tokens };
        let (unified, kv_tokens, cells) = kv.layout()?;
        // With one pool an idle sequence costs nothing; a stream or a recurrent state always has its full
        // size.
        let idle = if unified && !kind.recurrent { options.sequences_idle_max } else { 0 };
        let sequences = sequences.saturating_add(idle).min(SEQUENCES_MAX);
        let threads = options.team.as_ref().map_or(options.threads, ThreadTeam::threads);
        let decode_threads = threads.compute.map_or_else(physical_cores, usize::from);
        let decode_threads = useful(within("threads.compute", decode_threads, THREADS_MAX)?);
        let prefill_threads = context.prefill_threads.map_or(decode_threads, usize::from);
        let prefill_threads = useful(within("prefill_threads", prefill_threads, THREADS_MAX)?);
        let team_threads = if options.team.is_some() { decode_threads } else { usize::MAX };
        Ok(Self {
            unified,
            kv_tokens,
            cells,
            kv_types,
            sequences,
            context_tokens: context_tokens.min(kv_tokens),
            batch_tokens: batch_tokens.min(cells),
            // A text's embedding is computed in one pass.
            ubatch_tokens: if kind.pooling.is_some() { batch_tokens.min(cells) } else { ubatch_tokens },
            decode_threads,
            prefill_threads: prefill_threads.min(team_threads),
            pooling: kind.pooling,
        })
    }

    /// Settings of llama.cpp's context for this session.
    pub fn context_settings<'a>(
        &self,
        context: &'a ContextOptions,
        options: &SessionOptions,
    ) -> ContextSettings<'a> {
        ContextSettings {
            options: context,
            cells: self.cells,
            kv_types: self.kv_types,
            sequences: self.sequences,
            unified: self.unified,
            batch_tokens: self.batch_tokens,
            ubatch_tokens: self.ubatch_tokens,
            // llama.cpp plans the largest pass with a whole number of tokens per sequence, which may exceed a
            // batch.
            outputs: self.batch_tokens.saturating_add(self.sequences),
            decode_threads: self.decode_threads,
            prefill_threads: self.prefill_threads,
            team: options.team.clone(),
            pooling: self.pooling,
            interrupt: options.interrupt.clone(),
        }
    }
}

/// Sizes the KV of a session.
struct KvSizing<'a> {
    info: &'a ModelInfo,
    kind: ModelKind,
    context: &'a ContextOptions,
    options: &'a SessionOptions,
    kv_types: KvTypes,
    sequences: usize,
    context_tokens: usize,
}

impl KvSizing<'_> {
    /// Whether the layout is unified, tokens of KV, and cells to allocate.
    fn layout(&self) -> Result<(bool, usize, usize), LoadError> {
        let full = self.context_tokens.saturating_mul(self.sequences).min(KV_TOKENS_MAX);
        let asked = match self.options.kv_tokens_max {
            Some(tokens) if self.bytes(tokens) > self.options.kv_bytes_max => return Err(self.memory(tokens)),
            Some(tokens) => Some(within("kv_tokens_max", tokens, KV_TOKENS_MAX)?),
            None => None,
        };
        let stream = self.context_tokens.min(asked.unwrap_or(usize::MAX)).next_multiple_of(CELLS_MULTIPLE);
        let stream_cells = stream.saturating_mul(self.sequences);
        let enough = asked.is_none_or(|tokens| tokens >= full);
        let fits = stream_cells <= KV_TOKENS_MAX && self.bytes(stream_cells) <= self.options.kv_bytes_max;
        match self.context.kv_layout {
            // With streams, llama.cpp splits texts of unequal length into several passes; an embedding needs
            // one pass.
            _ if self.kind.pooling.is_some() => self.unified(asked, full),
            KvLayout::Streams if !fits => Err(self.memory(stream_cells)),
            KvLayout::Streams => Ok((false, asked.unwrap_or(full).min(full), stream_cells)),
            KvLayout::Auto if enough && fits && self.prefers_streams() => Ok((false, full, stream_cells)),
            KvLayout::Auto | KvLayout::Unified => self.unified(asked, full),
        }
    }

    fn unified(&self, asked: Option<usize>, full: usize) -> Result<(bool, usize, usize), LoadError> {
        let token_bytes = self.bytes(CELLS_MULTIPLE).div_ceil(CELLS_MULTIPLE as u64).max(1);
        let affordable = usize::try_from(self.options.kv_bytes_max / token_bytes).unwrap_or(usize::MAX);
        let affordable = affordable / CELLS_MULTIPLE * CELLS_MULTIPLE;
        let tokens = asked.unwrap_or_else(|| {
            // A context length in the options must fit; the model's own length need not.
            let least = if self.options.context_tokens_max.is_some() { self.context_tokens } else { 1 };
            full.min(affordable).max(least)
        });
        let cells = tokens.next_multiple_of(CELLS_MULTIPLE);
        if self.bytes(cells) > self.options.kv_bytes_max {
            Err(self.memory(cells))
        } else {
            Ok((true, tokens, cells))
        }
    }

    /// Returns whether a session with enough memory for streams uses them by default.
    fn prefers_streams(&self) -> bool {
        // With a sliding window, only streams can fork and truncate. Without, attention runs over each
        // sequence's own cells. A recurrent state exists once per sequence in any layout. Not measured on
        // GPUs.
        self.kind.windowed || (self.kind.on_cpu && !self.kind.recurrent)
    }

    /// Bytes of `cells` cells.
    fn bytes(&self, cells: usize) -> u64 {
        self.kv_types.bytes(self.info.kv_bytes_per_token, cells)
    }

    fn memory(&self, cells: usize) -> LoadError {
        let (needed, available) = (self.bytes(cells), self.options.kv_bytes_max);
        LoadError::Memory { what: "the KV cache", needed, available }
    }
}

fn within(option: &'static str, value: usize, max: usize) -> Result<usize, LoadError> {
    let problem = format!("{value}, but 1 to {max} is allowed");
    if (1..=max).contains(&value) { Ok(value) } else { Err(LoadError::Option { option, problem }) }
}

fn check_rope(rope: &RopeOptions) -> Result<(), LoadError> {
    let positive = |x: f32| x.is_finite() && x > 0.0;
    let not_negative = |x: f32| x.is_finite() && x >= 0.0;
    let checks: [(&'static str, Option<f32>, bool, &str); 6] = [
        ("rope.freq_base", rope.freq_base, rope.freq_base.is_none_or(positive), "a number above 0"),
        ("rope.freq_scale", rope.freq_scale, rope.freq_scale.is_none_or(positive), "a number above 0"),
        (
            "rope.yarn_ext_factor",
            rope.yarn_ext_factor,
            rope.yarn_ext_factor.is_none_or(|x| (0.0..=1.0).contains(&x)),
            "0 to 1",
        ),
        (
            "rope.yarn_attn_factor",
            rope.yarn_attn_factor,
            rope.yarn_attn_factor.is_none_or(not_negative),
            "a number from 0 on",
        ),
        (
            "rope.yarn_beta_fast",
            rope.yarn_beta_fast,
            rope.yarn_beta_fast.is_none_or(not_negative),
            "a number from 0 on",
        ),
        (
            "rope.yarn_beta_slow",
            rope.yarn_beta_slow,
            rope.yarn_beta_slow.is_none_or(not_negative),
            "a number from 0 on",
        ),
    ];
    match checks.into_iter().find(|(_, _, good, _)| !good) {
        Some((option, value, _, allowed)) => Err(LoadError::Option {
            option,
            problem: format!("{}, but {allowed} is allowed", value.unwrap_or_default()),
        }),
        None if rope.yarn_orig_ctx == Some(0) => Err(LoadError::Option {
            option: "rope.yarn_orig_ctx",
            problem: "0, but 1 or more is allowed".to_owned(),
        }),
        None => Ok(()),
    }
}

/// Limits threads to those that can run at once: llama.cpp's threads spin while they wait for each other.
fn useful(threads: usize) -> usize {
    threads.min(std::thread::available_parallelism().map_or(1, usize::from))
}

/// Number of physical cores, at most those that the process may run on.
fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}
