//! Tensors of one layer.

use super::finder::Finder;
use super::{ExpertTensors, Matrix, Norm, Projection, Vector};
use crate::architecture::{Activation, Inputs, MlpKind, QkNorm};
use crate::config::{Config, DeltaNetConfig};
use crate::heads::Heads;
use crate::rope::LayerRope;
use exsa_core::error::LoadError;

/// Whether the matrix `name` is no operand of a product: a convolution's weights.
pub(super) fn is_kernel(name: &str) -> bool {
    name.ends_with(".shortconv.conv.weight") || name.ends_with(".ssm_conv1d.weight")
}

/// One layer: attention or another mixer and an MLP, added to the hidden state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerTensors<'g> {
    /// Input of the attention or other mixer.
    pub attention_input: InputTensors<'g>,
    /// The attention or other mixer.
    pub mixer: MixerTensors<'g>,
    /// Weight of the RMSNorm of the mixer's output.
    pub post_attention_norm: Option<Vector<'g>>,
    /// Input of the MLP.
    pub mlp_input: InputTensors<'g>,
    /// The MLP, or a mixture of experts.
    pub mlp: FeedForwardTensors<'g>,
    /// Weight of the RMSNorm of what the MLP gives.
    pub post_mlp_norm: Option<Vector<'g>>,
}

/// Part of a layer that mixes tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MixerTensors<'g> {
    /// Attention.
    Attention(AttentionTensors<'g>),
    /// A short convolution.
    ShortConv(ShortConvTensors<'g>),
    /// A gated delta net.
    DeltaNet(DeltaNetTensors<'g>),
}

/// Gated delta net (Yang et al., arXiv:2412.06464), as in Qwen3-Next and Qwen3.5.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DeltaNetTensors<'g> {
    /// Heads.
    pub heads: DeltaNetConfig,
    /// Projection to queries, keys and values, in this order: `[qkv_width, n_embd]`.
    pub qkv: Projection<'g>,
    /// Projection to the gates of the outputs, `[value_width, n_embd]`.
    pub gate: Projection<'g>,
    /// Weights of the convolution over queries, keys and values, `[qkv_width, tokens]`, the oldest token
    /// first.
    pub kernel: Matrix<'g>,
    /// Projection whose sigmoid is the strength of a correction, `[n_value, n_embd]`.
    pub beta: Projection<'g>,
    /// Projection that the decay is made of, `[n_value, n_embd]`.
    pub alpha: Projection<'g>,
    /// Bias of `alpha`, `[n_value]`.
    pub alpha_bias: Vector<'g>,
    /// Factors on `softplus(alpha + bias)`, which give the logarithm of the decay: `[n_value]`.
    pub decay: Vector<'g>,
    /// Weight of the RMSNorm of each head's output, `[head_dim]`.
    pub norm: Vector<'g>,
    /// Projection to the hidden state, `[n_embd, value_width]`.
    pub output: Projection<'g>,
}

/// Gated short convolution (Liquid AI, arXiv:2511.23404, section 2): of the three parts `b`, `c` and `x` of
/// the input projection, `b * x` goes through a causal convolution over tokens, channel by channel; the
/// result times `c` goes through the output projection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShortConvTensors<'g> {
    /// Projection to `b`, `c` and `x`, in this order: `[3 * n_embd, n_embd]`.
    pub input: Projection<'g>,
    /// Weights of the convolution, `[n_embd, tokens]`, the oldest token first.
    pub kernel: Matrix<'g>,
    /// Projection to the hidden state, `[n_embd, n_embd]`.
    pub output: Projection<'g>,
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
    /// Whether the query projection has, head by head, `head_dim` values of a gate behind those of the query:
    /// the head's output is multiplied by the gate's sigmoid.
    pub gated: bool,
    /// Projection of all heads' outputs to the hidden state.
    pub output: Projection<'g>,
    /// Heads, and what their scores go through.
    pub heads: Heads,
    /// RoPE.
    pub rope: LayerRope,
    /// The sink of each head, a score without a value, `[n_head]`.
    pub sinks: Option<Vector<'g>>,
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

/// MLP of a layer, or what is in its place.
#[derive(Clone, Debug)]
pub enum FeedForwardTensors<'g> {
    /// One MLP for all tokens.
    Dense(MlpTensors<'g>),
    /// A mixture of experts.
    Experts(Box<ExpertTensors<'g>>),
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
        let mixer = if config.has_attention(index) {
            MixerTensors::Attention(AttentionTensors::find(config, index, finder)?)
        } else if let Some(heads) = config.delta_net {
            MixerTensors::DeltaNet(DeltaNetTensors::find(config, heads, index, finder)?)
        } else {
            MixerTensors::ShortConv(ShortConvTensors::find(config, index, finder)?)
        };
        let mlp = match config.layer_experts(index) {
            Some(experts) => {
                FeedForwardTensors::Experts(Box::new(ExpertTensors::find(config, experts, index, finder)?))
            }
            None => FeedForwardTensors::Dense(MlpTensors::find(config, index, finder)?),
        };
        let mut input = |part| finder.norm(architecture.norm, &name(part), n_embd).map(InputTensors::Normed);
        let (attention_input, mlp_input) = match architecture.inputs {
            Inputs::Normed => (input("attn_norm")?, input(architecture.mlp_norm)?),
            Inputs::Plain => (InputTensors::Plain, InputTensors::Plain),
            Inputs::Parallel => (input("attn_norm")?, InputTensors::Shared),
        };
        let mut norm = |part: &str| finder.rms_norm(&name(part), n_embd);
        let (post_attention_norm, post_mlp_norm) = if architecture.post_norms {
            (Some(norm("post_attention_norm")?), Some(norm("post_ffw_norm")?))
        } else {
            (None, None)
        };
        Ok(Self { attention_input, mixer, post_attention_norm, mlp_input, mlp, post_mlp_norm })
    }
}

impl<'g> AttentionTensors<'g> {
    fn find(config: &Config, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let &Config { n_embd, n_head, n_head_kv, head_dim, .. } = config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, width_kv) = (n_head * head_dim, n_head_kv * head_dim);
        let gated = config.architecture.attention_gate;
        let input = if config.architecture.fused_qkv {
            QkvTensors::Fused(finder.projection(&name("attn_qkv"), width + 2 * width_kv, n_embd)?)
        } else {
            QkvTensors::Split {
                query: finder.projection(&name("attn_q"), if gated { 2 * width } else { width }, n_embd)?,
                key: finder.projection(&name("attn_k"), width_kv, n_embd)?,
                value: finder.projection(&name("attn_v"), width_kv, n_embd)?,
            }
        };
        let has_norm =
            ["attn_q_norm", "attn_k_norm"].iter().any(|part| finder.has(&name(&format!("{part}.weight"))));
        let mut norm = |part: &str, len: usize| finder.rms_norm(&name(part), len);
        let (query_norm, key_norm) = match config.architecture.qk_norm {
            QkNorm::HeadsIfPresent if !has_norm => (HeadNormTensors::Absent, HeadNormTensors::Absent),
            QkNorm::Never => (HeadNormTensors::Absent, HeadNormTensors::Absent),
            QkNorm::Heads | QkNorm::HeadsIfPresent => (
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
        let sinks = if config.architecture.attention_sinks {
            Some(finder.vector(&name("attn_sinks.weight"), n_head)?)
        } else {
            None
        };
        Ok(Self { input, query_norm, key_norm, gated, output, heads, rope, sinks })
    }
}

impl<'g> DeltaNetTensors<'g> {
    fn find(
        config: &Config,
        heads: DeltaNetConfig,
        index: usize,
        finder: &mut Finder<'g>,
    ) -> Result<Self, LoadError> {
        let &Config { n_embd, conv_tokens, .. } = config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, values) = (heads.qkv_width(), heads.value_width());
        Ok(Self {
            heads,
            qkv: finder.projection(&name("attn_qkv"), width, n_embd)?,
            gate: finder.projection(&name("attn_gate"), values, n_embd)?,
            kernel: finder.matrix(&name("ssm_conv1d.weight"), width, conv_tokens)?,
            beta: finder.projection(&name("ssm_beta"), heads.n_value, n_embd)?,
            alpha: finder.projection(&name("ssm_alpha"), heads.n_value, n_embd)?,
            alpha_bias: finder.vector(&name("ssm_dt.bias"), heads.n_value)?,
            decay: finder.vector(&name("ssm_a"), heads.n_value)?,
            norm: finder.vector(&name("ssm_norm.weight"), heads.head_dim)?,
            output: finder.projection(&name("ssm_out"), n_embd, values)?,
        })
    }
}

impl<'g> ShortConvTensors<'g> {
    fn find(config: &Config, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let &Config { n_embd, conv_tokens, .. } = config;
        let name = |part: &str| format!("blk.{index}.shortconv.{part}");
        Ok(Self {
            input: finder.projection(&name("in_proj"), 3 * n_embd, n_embd)?,
            kernel: finder.matrix(&name("conv.weight"), n_embd, conv_tokens)?,
            output: finder.projection(&name("out_proj"), n_embd, n_embd)?,
        })
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
