//! The MLP.

use super::linear::Linear;
use candle_core::{D, Result, Tensor};
use exsa_models::architecture::Activation;

/// A gated MLP (Shazeer, arXiv:2002.05202), `down(activation(gate(x)) * up(x))`, or one without a gate,
/// `down(activation(up(x)))`.
#[derive(Clone)]
pub(crate) struct Mlp {
    /// Projections to the hidden values.
    pub input: GateUp,
    /// Back to the hidden state.
    pub down: Linear,
    /// The activation.
    pub activation: Activation,
    /// Values between the projections.
    pub n_ff: usize,
}

/// Projections to the hidden values.
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
    /// No gate; `[n_ff, n_embd]`.
    Ungated(Linear),
}

impl Mlp {
    /// Values of a row that the projections to the hidden values give.
    pub fn hidden_width(&self) -> usize {
        match &self.input {
            GateUp::Split { .. } | GateUp::Fused(_) => 2 * self.n_ff,
            GateUp::Ungated(_) => self.n_ff,
        }
    }

    /// `x` and the result are `[rows, n_embd]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = match &self.input {
            GateUp::Split { gate, up } => (gate.forward(x)?, Some(up.forward(x)?)),
            GateUp::Fused(both) => {
                let both = both.forward(x)?;
                (both.narrow(D::Minus1, 0, self.n_ff)?, Some(both.narrow(D::Minus1, self.n_ff, self.n_ff)?))
            }
            GateUp::Ungated(up) => (up.forward(x)?, None),
        };
        let active = match self.activation {
            Activation::Silu => gate.silu()?,
            Activation::GeluTanh => gate.gelu()?,
        };
        self.down.forward(&match up {
            Some(up) => (active * up)?,
            None => active,
        })
    }
}
