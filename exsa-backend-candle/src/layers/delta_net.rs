//! Gated delta net.

use super::linear::Linear;
use super::norm::RmsNorm;
use super::vector::Vector;
use crate::kernels::float::delta_rule::DeltaHeads;
use std::sync::Arc;

/// Gated delta net (Yang et al., arXiv:2412.06464), as in Qwen3-Next and Qwen3.5: queries, keys and values go
/// through a short causal convolution and SiLU, then through the gated delta rule.
#[derive(Clone)]
pub(crate) struct DeltaNet {
    /// Shape of the heads.
    pub heads: DeltaHeads,
    /// Projection to queries, keys and values, `[qkv_width, n_embd]`.
    pub qkv: Linear,
    /// Projection to the gates of the outputs, `[value_width, n_embd]`.
    pub gate: Linear,
    /// Projection to the strengths of the corrections, `[n_value, n_embd]`.
    pub beta: Linear,
    /// Projection to the decays, `[n_value, n_embd]`.
    pub alpha: Linear,
    /// Bias of `alpha`, `[n_value]`.
    pub alpha_bias: Vector,
    /// Factors of the decays, `[n_value]`.
    pub decay: Vector,
    /// Weights of the convolution, `[tokens, qkv_width]`, the oldest token first.
    pub kernel: Arc<[f32]>,
    /// Norm of each head's output.
    pub norm: RmsNorm,
    /// Projection to the hidden state, `[n_embd, value_width]`.
    pub output: Linear,
}

impl DeltaNet {
    /// Values of the state before those of the heads: the inputs of the convolution.
    pub fn state_offset(&self) -> usize {
        self.kernel.len() - self.heads.qkv_width()
    }

    /// Values of a row in the workspace: inputs and outputs of the convolution, gates, strengths and decays.
    pub fn row_width(heads: DeltaHeads) -> usize {
        2 * heads.qkv_width() + heads.value_width() + 2 * heads.n_value
    }
}
