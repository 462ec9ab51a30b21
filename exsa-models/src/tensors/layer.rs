//! Tensors of one layer.

use super::finder::Finder;
use super::{Norm, Projection, Vector};
use crate::architecture::{Activation, Inputs, MlpKind, QkNorm};
use crate::config::Config;
use crate::heads::Heads;
use crate::rope::LayerRope;
use exsa_core::error::LoadError;

/// One layer: attention and MLP, added to the hidden state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerTensors<'g> {
    /// Input of the attention.
    pub attention_input: InputTensors<'g>,
    /// The attention.
    pub attention: AttentionTensors<'g>,
    /// Weight of the RMSNorm of what attention gives.
    pub post_attention_norm: Option<Vector<'g>>,
    /// Input of the MLP.
    pub mlp_input: InputTensors<'g>,
    /// The MLP.
    pub mlp: MlpTensors<'g>,
    /// Weight of the RMSNorm of what the MLP gives.
    pub post_mlp_norm: Option<Vector<'g>>,
}

/// Input of attention or MLP.
#[derive(Clone, Copy, Debug)]
pub enum InputTensors<'g> {
    /// The hidden state, normalized.
    Normed(Norm<'g>),
    /// The hidden state as it is.
    Plain,
    /// The input of the attention.
    Shared,
}

/// Attention of a layer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AttentionTensors<'g> {
    /// Projections to queries, keys and values.
    pub input: QkvTensors<'g>,
    /// Norm of queries before RoPE.
    pub query_norm: HeadNormTensors<'g>,
    /// Norm of keys before RoPE.
    pub key_norm: HeadNormTensors<'g>,
    /// Projection of all heads' outputs to the hidden state.
    pub output: Projection<'g>,
    /// Heads, and what their scores go through.
    pub heads: Heads,
    /// RoPE.
    pub rope: LayerRope,
}

/// Projections to queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum QkvTensors<'g> {
    /// By one matrix, in this order.
    Fused(Projection<'g>),
    /// By a matrix each.
    Split {
        /// To queries.
        query: Projection<'g>,
        /// To keys.
        key: Projection<'g>,
        /// To values.
        value: Projection<'g>,
    },
}

/// RMSNorm of queries or keys.
#[derive(Clone, Copy, Debug)]
pub enum HeadNormTensors<'g> {
    /// None.
    Absent,
    /// Head by head, by one weight of `head_dim` values.
    Each(Vector<'g>),
    /// Over all heads at once.
    Whole(Vector<'g>),
}

/// MLP of a layer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MlpTensors<'g> {
    /// Projections to the hidden values.
    pub input: GateUpTensors<'g>,
    /// Projection of the hidden values to the hidden state.
    pub down: Projection<'g>,
    /// Activation of the gate, or of the hidden values where there is none.
    pub activation: Activation,
    /// Hidden values.
    pub n_ff: usize,
}

/// Projections of an MLP to its hidden values.
#[derive(Clone, Copy, Debug)]
pub enum GateUpTensors<'g> {
    /// Gate and up by one matrix, in this order.
    Fused(Projection<'g>),
    /// Gate and up by a matrix each.
    Split {
        /// The gate.
        gate: Projection<'g>,
        /// The values that it multiplies.
        up: Projection<'g>,
    },
    /// Up alone.
    Ungated(Projection<'g>),
}

impl<'g> LayerTensors<'g> {
    /// Layer `index` of a model with `config`.
    pub(super) fn find(config: &Config, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let &Config { architecture, n_embd, .. } = config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let attention = AttentionTensors::find(config, index, finder)?;
        let mlp = MlpTensors::find(config, index, finder)?;
        let mut input = |part| finder.norm(architecture.norm, &name(part), n_embd).map(InputTensors::Normed);
        let (attention_input, mlp_input) = match architecture.inputs {
            Inputs::Normed => (input("attn_norm")?, input("ffn_norm")?),
            Inputs::Plain => (InputTensors::Plain, InputTensors::Plain),
            Inputs::Parallel => (input("attn_norm")?, InputTensors::Shared),
        };
        let mut norm = |part: &str| finder.rms_norm(&name(part), n_embd);
        let (post_attention_norm, post_mlp_norm) = if architecture.post_norms {
            (Some(norm("post_attention_norm")?), Some(norm("post_ffw_norm")?))
        } else {
            (None, None)
        };
        Ok(Self { attention_input, attention, post_attention_norm, mlp_input, mlp, post_mlp_norm })
    }
}

impl<'g> AttentionTensors<'g> {
    fn find(config: &Config, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let &Config { n_embd, n_head, n_head_kv, head_dim, .. } = config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, width_kv) = (n_head * head_dim, n_head_kv * head_dim);
        let input = if config.architecture.fused_qkv {
            QkvTensors::Fused(finder.projection(&name("attn_qkv"), width + 2 * width_kv, n_embd)?)
        } else {
            QkvTensors::Split {
                query: finder.projection(&name("attn_q"), width, n_embd)?,
                key: finder.projection(&name("attn_k"), width_kv, n_embd)?,
                value: finder.projection(&name("attn_v"), width_kv, n_embd)?,
            }
        };
        let mut norm = |part: &str, len: usize| finder.rms_norm(&name(part), len);
        let (query_norm, key_norm) = match config.architecture.qk_norm {
            QkNorm::Never => (HeadNormTensors::Absent, HeadNormTensors::Absent),
            QkNorm::Heads => (
                HeadNormTensors::Each(norm("attn_q_norm", head_dim)?),
                HeadNormTensors::Each(norm("attn_k_norm", head_dim)?),
            ),
            QkNorm::Whole => (
                HeadNormTensors::Whole(norm("attn_q_norm", width)?),
                HeadNormTensors::Whole(norm("attn_k_norm", width_kv)?),
            ),
        };
        let output = finder.projection(&name("attn_output"), n_embd, width)?;
        let (heads, rope) = (config.heads(index), config.layer_rope(index));
        Ok(Self { input, query_norm, key_norm, output, heads, rope })
    }
}

impl<'g> MlpTensors<'g> {
    fn find(config: &Config, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let &Config { architecture, n_embd, n_ff, .. } = config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let input = match architecture.mlp {
            MlpKind::FusedGate => {
                GateUpTensors::Fused(finder.projection(&name("ffn_up"), 2 * n_ff, n_embd)?)
            }
            MlpKind::Gated => GateUpTensors::Split {
                gate: finder.projection(&name("ffn_gate"), n_ff, n_embd)?,
                up: finder.projection(&name("ffn_up"), n_ff, n_embd)?,
            },
            MlpKind::Ungated => GateUpTensors::Ungated(finder.projection(&name("ffn_up"), n_ff, n_embd)?),
        };
        let down = finder.projection(&name("ffn_down"), n_embd, n_ff)?;
        Ok(Self { input, down, activation: architecture.activation, n_ff })
    }
}
