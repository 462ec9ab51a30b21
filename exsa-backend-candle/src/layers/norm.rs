//! RMSNorm.

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
