//! Norms of hidden states and of heads.

use super::vector::Vector;
use crate::kernels::float::rows;
use candle_core::{D, Result, Tensor};

/// Root mean square normalization (Zhang and Sennrich, arXiv:1910.07467): `x / sqrt(mean(x^2) + epsilon) *
/// weight` over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    weight: Vector,
    epsilon: f32,
}

/// Layer normalization (Ba et al., arXiv:1607.06450): `(x - mean(x)) / sqrt(variance(x) + epsilon) * weight +
/// bias` over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    weight: Vector,
    bias: Option<Vector>,
    epsilon: f32,
}

/// Input of a part of the model, made from the hidden state.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The hidden state, normalized.
    Rms(RmsNorm),
    /// The hidden state, normalized.
    Layer(LayerNorm),
    /// The hidden state.
    Plain,
    /// The input of the part before.
    Shared,
}

impl RmsNorm {
    /// A norm with `weight`, `[width]` f32.
    pub fn new(weight: Vector, epsilon: f32) -> Self {
        Self { weight, epsilon }
    }

    /// Normalizes the rows of `x`, `[.., width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean_square + f64::from(self.epsilon))?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(self.weight.tensor())
    }

    /// For the host's kernels.
    pub fn host(&self) -> rows::Norm<'_> {
        rows::Norm { weight: self.weight.values(), epsilon: self.epsilon }
    }
}

impl LayerNorm {
    /// A norm with `weight` and `bias`, `[width]` f32 each.
    pub fn new(weight: Vector, bias: Option<Vector>, epsilon: f32) -> Self {
        Self { weight, bias, epsilon }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (variance + f64::from(self.epsilon))?.sqrt()?;
        let y = centered.broadcast_div(&root)?.broadcast_mul(self.weight.tensor())?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias.tensor()),
            None => Ok(y),
        }
    }
}

impl Input {
    /// The input from the hidden states `x`, `[rows, width]`; `before` is that of the part before.
    pub fn forward(&self, x: &Tensor, before: &Tensor) -> Result<Tensor> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
            Self::Plain => Ok(x.clone()),
            Self::Shared => Ok(before.clone()),
        }
    }

    /// For the host's kernels.
    pub fn host(&self) -> rows::Input<'_> {
        match self {
            Self::Rms(norm) => rows::Input::Rms(norm.host()),
            Self::Layer(LayerNorm { weight, bias, epsilon }) => rows::Input::Layer(rows::LayerNorm {
                weight: weight.values(),
                bias: bias.as_ref().map(Vector::values),
                epsilon: *epsilon,
            }),
            Self::Plain => rows::Input::Copy,
            Self::Shared => rows::Input::Keep,
        }
    }
}
