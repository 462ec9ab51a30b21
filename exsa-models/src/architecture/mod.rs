//! Architectures as data: what each family of models does, in terms of the shared layers.
//!
//! A new family is a new [`Architecture`] in a file of its own and a line in [`ARCHITECTURES`]; new code is
//! needed only for mathematics that no layer knows yet.

mod cohere;
mod ernie;
mod exaone;
mod gemma;
mod glm;
mod gpt_oss;
mod granite;
mod lfm;
mod llama;
mod mixture;
mod olmo;
mod phi;
mod qwen;
mod smollm;
mod starcoder;

pub use mixture::{ExpertScores, ExpertWidth, Mixture, Normalize, SelectionBias, SharedWidth};

use crate::rope::RopePairs;
use exsa_core::error::LoadError;

/// All architectures that are described here.
pub static ARCHITECTURES: &[&Architecture] = &[
    &llama::LLAMA,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi::PHI3,
    &granite::GRANITE,
    &smollm::SMOLLM3,
    &olmo::OLMO2,
    &glm::GLM4,
    &exaone::EXAONE4,
    &cohere::COMMAND_R,
    &cohere::COHERE2,
    &starcoder::STARCODER2,
    &lfm::LFM2,
    &lfm::LFM2MOE,
    &qwen::QWEN35,
    &qwen::QWEN35MOE,
    &qwen::QWEN3MOE,
    &qwen::QWEN2MOE,
    &olmo::OLMOE,
    &granite::GRANITEMOE,
    &gpt_oss::GPT_OSS,
    &glm::GLM4MOE,
    &ernie::ERNIE4_5_MOE,
];

/// Activation of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in the approximation by tanh (Hendrycks and Gimpel, arXiv:1606.08415).
    GeluTanh,
    /// `x * sigmoid(1.702 x)` of values up to 7, on `up + 1` with `up` clamped to -7 to 7, as in gpt-oss.
    ClampedSwiglu,
}

/// Characteristics of a family of decoder-only transformers.
///
/// All have this in common: grouped-query attention with RoPE in all or some layers, an MLP or a mixture of
/// experts, and a norm before the output projection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Architecture {
    /// `general.architecture`, and the prefix of the metadata keys.
    pub name: &'static str,
    /// Layers that mix tokens, by attention or otherwise.
    pub mixers: Mixers,
    /// Norms of the hidden state.
    pub norm: NormKind,
    /// Name of the norm before the output projection.
    pub output_norm: &'static str,
    /// Inputs of attention and MLP.
    pub inputs: Inputs,
    /// Pairing of the rotary dimensions.
    pub rope_pairs: RopePairs,
    /// Layers with RoPE.
    pub rope_layers: RopeLayers,
    /// Queries, keys and values come from one matrix, `attn_qkv`, in this order.
    pub fused_qkv: bool,
    /// The output of attention is multiplied by the sigmoid of a gate, which `attn_q` has beside the queries,
    /// head by head.
    pub attention_gate: bool,
    /// RoPE by sections of positions is allowed, which are equal for text.
    pub rope_sections: bool,
    /// Norms of queries and keys before RoPE (`attn_q_norm`, `attn_k_norm`).
    pub qk_norm: QkNorm,
    /// The outputs of attention and MLP are normalized before they are added (`post_attention_norm`,
    /// `post_ffw_norm`).
    pub post_norms: bool,
    /// Name of the norm of the MLP's input.
    pub mlp_norm: &'static str,
    /// Attention has a sink for each head (`attn_sinks`), a score that has a part in the softmax and no value
    /// (arXiv:2309.17453).
    pub attention_sinks: bool,
    /// Projections of the MLP to its hidden values.
    pub mlp: MlpKind,
    /// Mixtures of experts in place of MLPs.
    pub mixture: Option<&'static Mixture>,
    /// The last layers, `nextn_predict_layers` of `block_count`, predict more tokens, and are left out.
    pub leaves_out_nextn: bool,
    /// The MLP's activation.
    pub activation: Activation,
    /// Factor on the embeddings.
    pub embedding_scale: EmbeddingScale,
    /// `attention.scale` replaces the factor on attention scores, and `residual_scale` multiplies the outputs
    /// of attention and MLP before they are added.
    pub layer_scales: bool,
    /// Layers with sliding-window attention.
    pub windows: Windows,
    /// Windows of models whose metadata have none, by number of layers and tokens of context.
    pub windows_by_size: &'static [[usize; 3]],
    /// RoPE of sliding-window layers.
    pub rope_sliding_window: SlidingWindowRope,
    /// Soft-capping of attention scores; the value holds where the metadata have none.
    pub attention_softcap: Option<f32>,
    /// Soft-capping of logits.
    pub logit_softcap: LogitSoftcap,
    /// Factor on the logits.
    pub logit_scale: LogitScale,
    /// Number of layers of the one size whose queries are divided by the root of `n_embd / n_head`, and not
    /// of `head_dim`.
    pub layers_with_wide_queries: Option<usize>,
    /// Number of layers from which models of the family need layers that are missing here.
    pub layers_unsupported: Option<usize>,
}

/// Kinds of layers by how they mix tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixers {
    /// Attention in all layers.
    Attention,
    /// Attention, and short convolutions in layers whose `attention.head_count_kv` is 0.
    ShortConvOrAttention,
    /// Attention in every `full_attention_interval`th layer, or in those that `attention.recurrent_layers`
    /// leaves out, and gated delta nets in the others.
    DeltaNetOrAttention,
}

/// Norms of the hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm.
    Rms,
    /// Layer normalization.
    Layer {
        /// Whether it has a bias.
        bias: bool,
    },
}

/// Inputs of attention and MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// The hidden state, normalized before each (`attn_norm`, and [`Architecture::mlp_norm`]).
    Normed,
    /// The hidden state as it is.
    Plain,
    /// The hidden state before the attention, normalized once for both (`attn_norm`): attention and MLP are
    /// parallel.
    Parallel,
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    Never,
    /// Head by head.
    Heads,
    /// Head by head, where the file has them.
    HeadsIfPresent,
    /// Over all heads at once.
    Whole,
}

/// Projections of an MLP to its hidden values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpKind {
    /// Gate and up, by a matrix each.
    Gated,
    /// Gate and up, by one matrix, `ffn_up`, in this order.
    FusedGate,
    /// Up alone.
    Ungated,
}

/// Layers with RoPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayers {
    /// All.
    All,
    /// All, or none where `rope.scaling.finetuned` is false.
    Finetuned,
    /// Of every so many layers all but the last.
    AllButEvery(usize),
    /// Those with a sliding window, of which there must be some.
    SlidingWindow,
    /// Those with a sliding window, or all where the metadata give no window.
    SlidingWindowOrAll,
}

/// RoPE of sliding-window layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlidingWindowRope {
    /// That of the other layers.
    Same,
    /// That of the other layers without scaling.
    Unscaled,
    /// Of this base where the metadata have none, without scaling.
    Base(f32),
}

/// Factor on the embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingScale {
    /// 1.
    One,
    /// The square root of their width.
    RootOfWidth,
    /// `embedding_scale`, where the metadata have it.
    Metadata,
}

/// Factor on the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitScale {
    /// None; `logit_scale` is not looked at.
    Never,
    /// `logit_scale` multiplies, where the metadata have it.
    Multiply,
    /// `logit_scale` divides; the metadata must have it.
    Divide,
}

/// Layers with sliding-window attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// None; `attention.sliding_window` is not looked at.
    Never,
    /// All, if the metadata give a window.
    All,
    /// Local and global layers alternate: of every `period` layers all but the last have a window, unless
    /// `attention.sliding_window_pattern` gives another period or lists the layers.
    LocalGlobal {
        /// Layers after which the pattern repeats.
        period: usize,
        /// Window where the metadata have none; `None` makes all layers global.
        default: Option<usize>,
    },
}

/// Soft-capping of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogitSoftcap {
    /// None; `final_logit_softcapping` is not looked at.
    Never,
    /// As the metadata say, else this.
    Metadata(Option<f32>),
}

/// Defaults that hold for most families: the llama architecture without its name.
const PLAIN: Architecture = Architecture {
    name: "",
    mixers: Mixers::Attention,
    norm: NormKind::Rms,
    output_norm: "output_norm",
    inputs: Inputs::Normed,
    rope_pairs: RopePairs::Neox,
    rope_layers: RopeLayers::All,
    fused_qkv: false,
    attention_gate: false,
    rope_sections: false,
    qk_norm: QkNorm::Never,
    post_norms: false,
    mlp_norm: "ffn_norm",
    attention_sinks: false,
    mlp: MlpKind::Gated,
    mixture: None,
    leaves_out_nextn: false,
    activation: Activation::Silu,
    embedding_scale: EmbeddingScale::One,
    layer_scales: false,
    windows: Windows::Never,
    windows_by_size: &[],
    rope_sliding_window: SlidingWindowRope::Same,
    attention_softcap: None,
    logit_softcap: LogitSoftcap::Never,
    logit_scale: LogitScale::Never,
    layers_with_wide_queries: None,
    layers_unsupported: None,
};

/// The architecture called `name`.
///
/// # Errors
///
/// [`LoadError::Unsupported`] for a name that is not in [`ARCHITECTURES`], with those that are, encoders
/// included.
pub fn find(name: &str) -> Result<&'static Architecture, LoadError> {
    ARCHITECTURES.iter().find(|architecture| architecture.name == name).copied().ok_or_else(|| {
        let encoders = crate::encoder::ENCODERS.iter().map(|encoder| encoder.name);
        let names = ARCHITECTURES.iter().map(|architecture| architecture.name).chain(encoders);
        let names = names.collect::<Vec<_>>().join(", ");
        LoadError::Unsupported {
            what: format!("architecture '{name}'"),
            supported: format!("{names}; the llama.cpp backend runs more"),
        }
    })
}
