//! Options that only llama.cpp has.

/// Type that keys or values are held in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvType {
    /// 32 bits. The fused attention rounds them to 16 all the same.
    F32,
    /// 16 bits, 11 of them significant.
    #[default]
    F16,
    /// 16 bits, 8 of them significant.
    Bf16,
    /// 8.5 bits: blocks of 32 values with one scale.
    Q8_0,
    /// 4.5 bits: blocks of 32 values with one scale.
    Q4_0,
}

impl KvType {
    /// Bytes of 32 values.
    pub(crate) fn bytes_of_32(self) -> u64 {
        match self {
            Self::F32 => 128,
            Self::F16 | Self::Bf16 => 64,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
        }
    }

    /// Whether values of this type need flash attention.
    pub(crate) fn is_quantized(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }
}

/// How the KV cells of a session are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvLayout {
    /// [`Streams`](Self::Streams) for models with a sliding window, which can be cut and shared there alone, and on the
    /// CPU; where `sequences_max` times `context_tokens_max` fits what the session's options allow for KV. Else [`Unified`](Self::Unified).
    #[default]
    Auto,
    /// One pool of cells for all sequences, and what every session that gives vectors has. `fork` shares cells without a
    /// copy, and a long sequence may take what short ones leave; but attention of each token runs, masked, over the cells of all sequences.
    Unified,
    /// A stream of cells for each sequence, as long as its context. Attention runs over the sequence's own cells; but the
    /// memory is taken for all sequences at full length, and `fork` copies. llama.cpp computes in one pass those whose streams follow
    /// each other; so a sequence that has left a gap between itself and the others of its batch is moved, by way of host
    /// memory, where its KV is smaller than the weights.
    Streams,
}

/// How a model is divided among several GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitMode {
    /// All on [`main_gpu`](crate::LlamaCppBackend::main_gpu).
    None,
    /// Layers and their KV go to one GPU or the other.
    #[default]
    Layer,
    /// Each matrix is divided by rows.
    Row,
}

/// Whether attention is computed by the fused kernel, which never holds a whole row of scores (Dao et al.,
/// arXiv:2205.14135).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlashAttention {
    /// llama.cpp decides by model and device: on the CPU it takes it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never. On the CPU that makes prompts slower and single tokens of long contexts faster, but only in
    /// [`KvLayout::Streams`]: without the kernel each token is multiplied with the cells of all sequences of a pool. KV that is
    /// saved in sessions with it is refused in sessions without, and the other way round.
    Off,
}

/// How RoPE is scaled to contexts longer than those of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are multiplied by `freq_scale` (Chen et al., arXiv:2306.15595).
    Linear,
    /// YaRN (Peng et al., arXiv:2309.00071).
    Yarn,
}

/// Parameters of RoPE that take the place of the file's. `None` keeps the file's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    /// Turns over the original context above which YaRN leaves a frequency alone, at least 0.
    pub yarn_beta_fast: Option<f32>,
    /// Turns over the original context below which YaRN interpolates a frequency, at least 0.
    pub yarn_beta_slow: Option<f32>,
    /// Tokens of context before scaling, at least 1.
    pub yarn_orig_ctx: Option<u32>,
}

/// How a model is loaded, beyond what core's options say.
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

/// How sessions are made, beyond what core's options say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContextOptions {
    pub kv_layout: KvLayout,
    pub key_type: KvType,
    pub value_type: KvType,
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
            key_type: KvType::default(),
            value_type: KvType::default(),
            kv_on_device: true,
            swa_full: true,
            flash_attention: FlashAttention::default(),
            rope: RopeOptions::default(),
            prefill_threads: None,
            ubatch_tokens_max: None,
        }
    }
}
