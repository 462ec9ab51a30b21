//! Gated short convolution.

use super::linear::Linear;
use std::sync::Arc;

/// Gated short convolution of LFM2 (arXiv:2511.23404): `output(c * conv(b * x))`, where `b`, `c` and `x` are
/// the parts of the input projection.
#[derive(Clone)]
pub(crate) struct ShortConv {
    /// Projection to `b`, `c` and `x`, `[3 * n_embd, n_embd]`.
    pub input: Linear,
    /// Weights, `[tokens, n_embd]`, the oldest token first.
    pub kernel: Arc<[f32]>,
    /// Projection to the hidden state, `[n_embd, n_embd]`.
    pub output: Linear,
}
