//! RMSNorm.

use super::host;
use crate::compute::Compute;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};

/// Values that one thread takes at a time, about.
const RUN: usize = 8192;

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
    pub fn forward(&self, x: &Tensor, compute: &Compute) -> Result<Tensor> {
        let x = x.contiguous()?;
        if x.device().is_cpu() {
            x.apply_op2_no_bwd(&self.weight, &HostNorm { epsilon: self.epsilon, compute })
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

struct HostNorm<'a> {
    epsilon: f32,
    compute: &'a Compute,
}

impl CustomOp2 for HostNorm<'_> {
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
        let mut out = vec![0.0; x.len()];
        // Rows of a head are short: several make a run.
        let width = weight.len();
        let (run, epsilon) = ((RUN / width).max(1) * width, self.epsilon);
        self.compute.team().for_each_run(&mut out, run, |i, out| {
            for (x, out) in x[i * run..].chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let mean_square = sum_of_squares(x) / width as f32;
                let factor = 1.0 / (mean_square + epsilon).sqrt();
                out.iter_mut().zip(x).zip(weight).for_each(|((out, x), w)| *out = x * factor * w);
            }
        });
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
        let difference = (norm.forward(&x, &Compute::new(&Default::default()).unwrap()).unwrap()
            - norm.forward_composed(&x).unwrap())
        .unwrap();
        let worst = difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-5, "{worst}");
    }
}
