//! RMSNorm.

use super::host;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};

/// Root mean square normalization (Zhang and Sennrich, arXiv:1910.07467): `x / sqrt(mean(x^2) + epsilon) * weight` over the
/// last dimension.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    epsilon: f32,
}

impl RmsNorm {
    /// A norm with `weight`, `[width]` f32.
    pub fn new(weight: Tensor, epsilon: f32) -> Self {
        Self { weight, epsilon }
    }

    /// Normalizes the rows of `x`, `[.., width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if x.device().is_cpu() {
            x.apply_op2_no_bwd(&self.weight, &HostNorm { epsilon: self.epsilon })
        } else {
            self.forward_composed(&x)
        }
    }

    fn forward_composed(&self, x: &Tensor) -> Result<Tensor> {
        let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean_square + f64::from(self.epsilon))?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(&self.weight)
    }
}

struct HostNorm {
    epsilon: f32,
}

impl CustomOp2 for HostNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x: &[f32] = host::slice(x, x_layout)?;
        let weight: &[f32] = host::slice(weight, weight_layout)?;
        let mut out = Vec::with_capacity(x.len());
        for row in x.chunks_exact(weight.len()) {
            let mean_square = sum_of_squares(row) / row.len() as f32;
            let factor = 1.0 / (mean_square + self.epsilon).sqrt();
            out.extend(row.iter().zip(weight).map(|(x, w)| x * factor * w));
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// In eight partial sums, so that the processor can add them side by side.
fn sum_of_squares(row: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let chunks = row.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_ways_agree() {
        let x = Tensor::randn(0f32, 2.0, (3, 5, 19), &Device::Cpu).unwrap();
        let weight = Tensor::randn(1f32, 0.1, 19, &Device::Cpu).unwrap();
        let norm = RmsNorm::new(weight, 1e-3);
        let difference = (norm.forward(&x).unwrap() - norm.forward_composed(&x).unwrap()).unwrap();
        let worst = difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-5, "{worst}");
    }
}
