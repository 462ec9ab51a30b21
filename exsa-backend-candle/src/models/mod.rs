//! Architectures as data: what each family of models does, in terms of the shared layers.
//!
//! A new family is a new [`Architecture`] in a file of its own and a line in [`ARCHITECTURES`]; new code is
//! needed only for mathematics that no layer knows yet.

mod gemma;
mod llama;
mod phi;
mod qwen;

use crate::shape::{Activation, RopePairs};
use exsa_core::error::LoadError;

/// All architectures that can be run.
static ARCHITECTURES: [&Architecture; 6] =
    [&llama::LLAMA, &qwen::QWEN2, &qwen::QWEN3, &gemma::GEMMA2, &gemma::GEMMA3, &phi::PHI3];

/// Characteristics of a family of decoder-only transformers.
///
/// All have this in common: RMSNorm before attention and before the MLP, RoPE, grouped-query attention, a
/// gated MLP.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// `general.architecture`, and the prefix of the metadata keys.
    pub name: &'static str,
    /// Pairing of the rotary dimensions.
    pub rope_pairs: RopePairs,
    /// Queries, keys and values come from one matrix, `attn_qkv`, in this order.
    pub fused_qkv: bool,
    /// Gate and up projection come from one matrix, `ffn_up`, in this order.
    pub fused_gate_up: bool,
    /// Queries and keys are normalized, head by head, before RoPE (`attn_q_norm`, `attn_k_norm`).
    pub qk_norm: bool,
    /// The outputs of attention and MLP are normalized before they are added (`post_attention_norm`,
    /// `post_ffw_norm`).
    pub post_norms: bool,
    /// The gate's activation.
    pub activation: Activation,
    /// Embeddings are multiplied by the square root of their width.
    pub scaled_embeddings: bool,
    /// Layers with sliding-window attention.
    pub windows: Windows,
    /// RoPE base of sliding-window layers, where it differs from that of the global ones; it is not scaled.
    pub rope_base_sliding_window: Option<f32>,
    /// Soft-capping of attention scores; the value holds where the metadata have none.
    pub attention_softcap: Option<f32>,
    /// Soft-capping of logits.
    pub logit_softcap: LogitSoftcap,
    /// Number of layers of the one size whose queries are divided by the root of `n_embd / n_head`, and not
    /// of `head_dim`.
    pub layers_with_wide_queries: Option<usize>,
}

/// Layers with sliding-window attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Windows {
    /// None; `attention.sliding_window` is not looked at.
    Never,
    /// All, if the metadata give a window.
    All,
    /// Local and global layers alternate: of every `period` layers all but the last have a window.
    LocalGlobal {
        /// Layers after which the pattern repeats.
        period: usize,
        /// Window where the metadata have none; `None` makes all layers global.
        default: Option<usize>,
    },
}

/// Soft-capping of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LogitSoftcap {
    /// None; `final_logit_softcapping` is not looked at.
    Never,
    /// As the metadata say, else this.
    Metadata(Option<f32>),
}

/// Defaults that hold for most families: the llama architecture without its name.
const PLAIN: Architecture = Architecture {
    name: "",
    rope_pairs: RopePairs::Neox,
    fused_qkv: false,
    fused_gate_up: false,
    qk_norm: false,
    post_norms: false,
    activation: Activation::Silu,
    scaled_embeddings: false,
    windows: Windows::Never,
    rope_base_sliding_window: None,
    attention_softcap: None,
    logit_softcap: LogitSoftcap::Never,
    layers_with_wide_queries: None,
};

/// The architecture called `name`.
pub(crate) fn find(name: &str) -> Result<&'static Architecture, LoadError> {
    ARCHITECTURES.iter().find(|architecture| architecture.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
        LoadError::Unsupported { what: format!("architecture '{name}'"), supported: names.join(", ") }
    })
}
