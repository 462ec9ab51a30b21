//! Options of loading and of sessions.

use super::{Interrupt, KvType, PackedCache, Pooling, ThreadTeam};
use crate::gguf::GgmlType;
use crate::model_file::{MetadataOverride, OverrideValue};
use crate::tokenizer::TokenizerOptions;
use std::num::NonZeroUsize;

/// Default of [`SessionOptions::span_adapters_max`].
const SPAN_ADAPTERS_MAX: usize = 4;

/// Default of [`SessionOptions::adapter_rank_max`].
pub(super) const ADAPTER_RANK_MAX: usize = 64;

/// Options of loading a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Name of the device, from [`InferenceBackend::devices`](super::InferenceBackend::devices);
    /// `None` takes the first device.
    pub device: Option<String>,
    /// Threads for loading.
    pub threads: ThreadOptions,
    /// Packed cache: a file with the weights in the backend's own layout, which later loads and other
    /// processes map; `None`, the default, disables it.
    pub packed_cache: Option<PackedCache>,
    /// Metadata in place of the file's, in order; none by default. Keys that the file has not are set too,
    /// with a warning in the log.
    pub metadata_overrides: Vec<MetadataOverride>,
    /// Type that matrices of F32, F16 and BF16 are quantized to while they are loaded, where their rows are
    /// whole blocks; `None`, the default, keeps the types of the file. A type of a mixture (Q4_K, Q5_K)
    /// leaves some matrices with more bits, as files of that name have them.
    pub quantize: Option<GgmlType>,
    /// The tokenizer: for a file that names a pre-tokenizer which is not known, the nearest one.
    pub tokenizer: TokenizerOptions,
}

impl LoadOptions {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the device by name.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = Some(name.into());
        self
    }

    /// Sets the threads for loading.
    #[must_use]
    pub fn threads(mut self, threads: ThreadOptions) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the options of the tokenizer.
    #[must_use]
    pub fn tokenizer(mut self, options: TokenizerOptions) -> Self {
        self.tokenizer = options;
        self
    }

    /// Sets the packed cache.
    #[must_use]
    pub fn packed_cache(mut self, cache: impl Into<Option<PackedCache>>) -> Self {
        self.packed_cache = cache.into();
        self
    }

    /// Sets the value of a metadata key in place of the file's, as llama.cpp's `--override-kv`. A key that
    /// the file has keeps its type: loading fails with [`LoadError::Option`](crate::error::LoadError::Option)
    /// for a value of another.
    ///
    /// ```
    /// use exsa_core::backend::LoadOptions;
    ///
    /// let options = LoadOptions::new().metadata_override("llama.rope.freq_base", 1e6);
    /// assert_eq!(options.metadata_overrides.len(), 1);
    /// ```
    #[must_use]
    pub fn metadata_override(mut self, key: impl Into<String>, value: impl Into<OverrideValue>) -> Self {
        self.metadata_overrides.push(MetadataOverride::new(key, value));
        self
    }

    /// Sets the type that matrices are quantized to while they are loaded. Backends that cannot do so refuse
    /// it with [`LoadError::Option`](crate::error::LoadError::Option).
    #[must_use]
    pub fn quantize(mut self, dtype: impl Into<Option<GgmlType>>) -> Self {
        self.quantize = dtype.into();
        self
    }
}

/// Options of a session. `None` leaves the choice to the backend.
///
/// ```
/// use exsa_core::backend::{KvType, SessionOptions};
///
/// let options = SessionOptions::new().sequences(4).context_tokens(2048).kv_type(KvType::Q8_0);
/// assert_eq!(options.batch_tokens_max, 512);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct SessionOptions {
    /// Sequences that can hold tokens at one time; 16 by default.
    pub sequences_max: usize,
    /// Additional idle sequences, in which the engine keeps cached prefixes; 0 by default. They do not add to
    /// the KV cache, so the default of [`kv_tokens_max`](Self::kv_tokens_max) ignores them. A session that
    /// supports them adds them to [`Capabilities::sequences_max`](super::Capabilities::sequences_max).
    pub sequences_idle_max: usize,
    /// Maximum tokens in one sequence; by default, and at most, the model's context length.
    pub context_tokens_max: Option<usize>,
    /// Size of the KV cache in tokens, over all sequences, rounded up to whole blocks; by default
    /// `context_tokens_max` times `sequences_max`, reduced to what [`kv_bytes_max`](Self::kv_bytes_max)
    /// allows. An explicit `context_tokens_max` must fit.
    pub kv_tokens_max: Option<usize>,
    /// Maximum bytes of the KV cache; 1 GiB by default. An explicit `kv_tokens_max` that
    /// needs more is refused with [`LoadError::Memory`](crate::error::LoadError::Memory).
    pub kv_bytes_max: u64,
    /// Element type of cached keys; `None` is f16.
    pub key_type: Option<KvType>,
    /// Element type of cached values; `None` is f16.
    pub value_type: Option<KvType>,
    /// Maximum tokens in one batch; 512 by default.
    pub batch_tokens_max: usize,
    /// Threads for the forward pass; unused if [`team`](Self::team) is set.
    pub threads: ThreadOptions,
    /// Thread team shared with other sessions; `None`, the default, starts separate threads for the session.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub team: Option<ThreadTeam>,
    /// Maximum LoRA adapters per span; 4 by default. With 0, the session supports no adapters and reserves no
    /// memory for them. The effective value is reported in
    /// [`Capabilities::span_adapters_max`](super::Capabilities::span_adapters_max).
    pub span_adapters_max: usize,
    /// Maximum rank of an adapter's matrices; 64 by default. The scratch memory of a pass depends on it.
    pub adapter_rank_max: usize,
    /// Pooling of [`Session::embed`](super::Session::embed); `None` takes the model's pooling.
    /// The effective value is reported in [`Capabilities::embed`](super::Capabilities::embed).
    pub pooling: Option<Pooling>,
    /// Ends a running forward pass from another thread. For sessions
    /// without an engine: an engine sets its own interrupt.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub interrupt: Interrupt,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            sequences_max: 16,
            sequences_idle_max: 0,
            context_tokens_max: None,
            kv_tokens_max: None,
            kv_bytes_max: 1 << 30,
            key_type: None,
            value_type: None,
            batch_tokens_max: 512,
            threads: ThreadOptions::default(),
            team: None,
            span_adapters_max: SPAN_ADAPTERS_MAX,
            adapter_rank_max: ADAPTER_RANK_MAX,
            pooling: None,
            interrupt: Interrupt::default(),
        }
    }
}

impl SessionOptions {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the sequences that can hold tokens at one time.
    #[must_use]
    pub fn sequences(mut self, max: usize) -> Self {
        self.sequences_max = max;
        self
    }

    /// Sets the sequences kept as cached prefixes.
    #[must_use]
    pub fn idle_sequences(mut self, max: usize) -> Self {
        self.sequences_idle_max = max;
        self
    }

    /// Sets the maximum tokens in one sequence.
    #[must_use]
    pub fn context_tokens(mut self, max: impl Into<Option<usize>>) -> Self {
        self.context_tokens_max = max.into();
        self
    }

    /// Sets the tokens of KV over all sequences.
    #[must_use]
    pub fn kv_tokens(mut self, max: impl Into<Option<usize>>) -> Self {
        self.kv_tokens_max = max.into();
        self
    }

    /// Sets the bytes that the KV cache may take.
    #[must_use]
    pub fn kv_bytes(mut self, max: u64) -> Self {
        self.kv_bytes_max = max;
        self
    }

    /// Sets the element type of cached keys and values.
    #[must_use]
    pub fn kv_type(self, kv_type: KvType) -> Self {
        self.kv_types(kv_type, kv_type)
    }

    /// Sets the element types of cached keys and of cached values.
    #[must_use]
    pub fn kv_types(mut self, keys: KvType, values: KvType) -> Self {
        self.key_type = Some(keys);
        self.value_type = Some(values);
        self
    }

    /// Sets the maximum tokens in one batch.
    #[must_use]
    pub fn batch_tokens(mut self, max: usize) -> Self {
        self.batch_tokens_max = max;
        self
    }

    /// Sets the threads for the forward pass.
    #[must_use]
    pub fn threads(mut self, threads: ThreadOptions) -> Self {
        self.threads = threads;
        self
    }

    /// Shares a thread team with other sessions.
    #[must_use]
    pub fn team(mut self, team: &ThreadTeam) -> Self {
        self.team = Some(team.clone());
        self
    }

    /// Sets the maximum adapters of one span, and the maximum rank of their matrices.
    #[must_use]
    pub fn adapters(mut self, span_max: usize, rank_max: usize) -> Self {
        self.span_adapters_max = span_max;
        self.adapter_rank_max = rank_max;
        self
    }

    /// Sets the pooling of embeddings.
    #[must_use]
    pub fn pooling(mut self, pooling: impl Into<Option<Pooling>>) -> Self {
        self.pooling = pooling.into();
        self
    }

    /// Sets the interrupt of forward passes.
    #[must_use]
    pub fn interrupt(mut self, interrupt: &Interrupt) -> Self {
        self.interrupt = interrupt.clone();
        self
    }
}

/// Threads that a backend may use. It starts no other threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ThreadOptions {
    /// Compute threads, including the calling thread; `None` is
    /// the number of physical cores available to the process.
    pub compute: Option<NonZeroUsize>,
}

impl ThreadOptions {
    /// One thread per physical core available to the process.
    #[must_use]
    pub fn auto() -> Self {
        Self::default()
    }

    /// `compute` threads; `None` is [`auto`](Self::auto).
    #[must_use]
    pub fn new(compute: Option<NonZeroUsize>) -> Self {
        Self { compute }
    }

    /// `n` threads; 0 is [`auto`](Self::auto).
    #[must_use]
    pub fn compute(n: usize) -> Self {
        Self { compute: NonZeroUsize::new(n) }
    }
}
