//! Options that only the llama.cpp backend has.

/// How the KV cells of a session are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvLayout {
    /// [`Streams`](Self::Streams) on the CPU, and for models with a sliding window, whose sequences can only
    /// be truncated and forked in that layout, provided that `sequences_max` times `context_tokens_max` fits
    /// the session's limits for KV. Otherwise [`Unified`](Self::Unified).
    #[default]
    Auto,
    /// One pool of cells for all sequences. `fork` shares cells without a copy, and long sequences may use
    /// the cells that short ones leave free; but attention of each token runs, masked, over the cells of all
    /// sequences. Embedding sessions always have this layout.
    Unified,
    /// One stream of cells per sequence, as long as its context. Attention runs over the sequence's own
    /// cells; but memory is allocated for all sequences at full length, and `fork` copies. llama.cpp computes
    /// adjacent streams in one pass: a sequence with a gap between itself and the others of its batch is
    /// moved through host memory, if its KV is smaller than the weights.
    Streams,
}

/// How a model is divided among several GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitMode {
    /// All on [`main_gpu`](crate::LlamaCppBackend::main_gpu).
    None,
    /// Layers, with their KV, are distributed over the GPUs.
    #[default]
    Layer,
    /// Each matrix is divided by rows.
    Row,
}

/// Use of flash attention, which never holds a whole row of scores (Dao et al., arXiv:2205.14135).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlashAttention {
    /// llama.cpp decides by model and device. On the CPU it uses flash attention.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never. On the CPU, prompts get slower and decoding at long contexts gets faster, the latter in
    /// [`KvLayout::Streams`] only: in one pool, each token is multiplied with the cells of all sequences. KV
    /// saved with flash attention cannot be restored without, and vice versa.
    Off,
}

/// Scaling of RoPE to contexts longer than those of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Positions are multiplied by `freq_scale` (Chen et al., arXiv:2306.15595).
    Linear,
    /// YaRN (Peng et al., arXiv:2309.00071).
    Yarn,
}

/// Overrides for the file's RoPE parameters. `None`, the default, keeps the file's.
///
/// ```
/// use exsa_backend_llamacpp::{RopeOptions, RopeScaling};
///
/// let twice_the_context = RopeOptions::new().scaling(RopeScaling::Linear).freq_scale(0.5);
/// assert_eq!(twice_the_context.freq_base, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RopeOptions {
    /// Kind of scaling.
    pub scaling: Option<RopeScaling>,
    /// Base of the frequencies, above 0.
    pub freq_base: Option<f32>,
    /// Factor on the positions, above 0: 0.5 doubles the context.
    pub freq_scale: Option<f32>,
    /// YaRN's mix of extrapolation, 0 to 1.
    pub yarn_ext_factor: Option<f32>,
    /// YaRN's factor on the attention, at least 0.
    pub yarn_attn_factor: Option<f32>,
    /// Rotations over the original context above which YaRN leaves a frequency unchanged, at least 0.
    pub yarn_beta_fast: Option<f32>,
    /// Rotations over the original context below which YaRN interpolates a frequency fully, at least 0.
    pub yarn_beta_slow: Option<f32>,
    /// Tokens of context before scaling, at least 1.
    pub yarn_orig_ctx: Option<u32>,
}

impl RopeOptions {
    /// Keeps all parameters of the file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`scaling`](Self::scaling).
    #[must_use]
    pub fn scaling(mut self, scaling: RopeScaling) -> Self {
        self.scaling = Some(scaling);
        self
    }

    /// Sets [`freq_base`](Self::freq_base).
    #[must_use]
    pub fn freq_base(mut self, base: f32) -> Self {
        self.freq_base = Some(base);
        self
    }

    /// Sets [`freq_scale`](Self::freq_scale).
    #[must_use]
    pub fn freq_scale(mut self, scale: f32) -> Self {
        self.freq_scale = Some(scale);
        self
    }

    /// Sets [`yarn_ext_factor`](Self::yarn_ext_factor).
    #[must_use]
    pub fn yarn_ext_factor(mut self, factor: f32) -> Self {
        self.yarn_ext_factor = Some(factor);
        self
    }

    /// Sets [`yarn_attn_factor`](Self::yarn_attn_factor).
    #[must_use]
    pub fn yarn_attn_factor(mut self, factor: f32) -> Self {
        self.yarn_attn_factor = Some(factor);
        self
    }

    /// Sets [`yarn_beta_fast`](Self::yarn_beta_fast).
    #[must_use]
    pub fn yarn_beta_fast(mut self, rotations: f32) -> Self {
        self.yarn_beta_fast = Some(rotations);
        self
    }

    /// Sets [`yarn_beta_slow`](Self::yarn_beta_slow).
    #[must_use]
    pub fn yarn_beta_slow(mut self, rotations: f32) -> Self {
        self.yarn_beta_slow = Some(rotations);
        self
    }

    /// Sets [`yarn_orig_ctx`](Self::yarn_orig_ctx).
    #[must_use]
    pub fn yarn_orig_ctx(mut self, tokens: u32) -> Self {
        self.yarn_orig_ctx = Some(tokens);
        self
    }
}

/// Options for loading a model, beyond core's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelOptions {
    pub gpu_layers: Option<u32>,
    pub split_mode: SplitMode,
    pub main_gpu: u32,
    pub tensor_split: Vec<f32>,
    pub mmap: bool,
    pub mlock: bool,
    pub check_tensors: bool,
    pub repack: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            gpu_layers: None,
            split_mode: SplitMode::default(),
            main_gpu: 0,
            tensor_split: Vec::new(),
            mmap: true,
            mlock: false,
            check_tensors: false,
            repack: true,
        }
    }
}

/// Options of sessions, beyond core's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContextOptions {
    pub kv_layout: KvLayout,
    pub kv_on_device: bool,
    pub swa_full: bool,
    pub flash_attention: FlashAttention,
    pub rope: RopeOptions,
    pub prefill_threads: Option<std::num::NonZeroUsize>,
    pub ubatch_tokens_max: Option<usize>,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            kv_layout: KvLayout::default(),
            kv_on_device: true,
            swa_full: true,
            flash_attention: FlashAttention::default(),
            rope: RopeOptions::default(),
            prefill_threads: None,
            ubatch_tokens_max: None,
        }
    }
}
