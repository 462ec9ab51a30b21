//! The gated MLP.

use super::linear::Linear;
use crate::shape::Activation;
use candle_core::{D, Result, Tensor};

/// A gated MLP (Shazeer, arXiv:2002.05202): `down(activation(gate(x)) * up(x))`.
#[derive(Clone)]
pub(crate) struct Mlp {
    /// Gate and up projection.
    pub input: GateUp,
    /// Back to the hidden state.
    pub down: Linear,
    /// The gate's activation.
    pub activation: Activation,
    /// Values between the projections.
    pub n_ff: usize,
}

/// Gate and up projection.
#[derive(Clone)]
pub(crate) enum GateUp {
    /// Of two matrices.
    Split {
        /// `[n_ff, n_embd]`.
        gate: Linear,
        /// `[n_ff, n_embd]`.
        up: Linear,
    },
    /// Of one, `[2 * n_ff, n_embd]`, the gate first.
    Fused(Linear),
}

impl Mlp {
    /// `x` and the result are `[rows, n_embd]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = match &self.input {
            GateUp::Split { gate, up } => (gate.forward(x)?, up.forward(x)?),
            GateUp::Fused(both) => {
                let both = both.forward(x)?;
                (both.narrow(D::Minus1, 0, self.n_ff)?, both.narrow(D::Minus1, self.n_ff, self.n_ff)?)
            }
        };
        let hidden = match self.activation {
            Activation::Silu => gate.silu()? * up,
            Activation::GeluTanh => gate.gelu()? * up,
        };
        self.down.forward(&hidden?)
    }
}
