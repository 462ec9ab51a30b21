//! Rotary position embedding.

use super::host;
use crate::config::{RopeConfig, RopeScaling};
use crate::models::RopePairs;
use candle_core::{CpuStorage, D, Device, InplaceOp3, Layout, Result, Tensor};
use std::f64::consts::PI;

/// YaRN's parameters alpha and beta: turns over the original context below which a frequency is interpolated, and above
/// which it is left alone (arXiv:2309.00071, section 3.2).
const YARN_TURNS_LOW: f64 = 1.0;
const YARN_TURNS_HIGH: f64 = 32.0;

/// Angle per token of every pair of values that is turned.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    /// Radians per token, `[dims / 2]`.
    frequencies: Vec<f64>,
    magnitude: f64,
    pairs: RopePairs,
}

/// Cosines and sines of the positions in a batch: `[tokens, dims / 2]` f32 each.
#[derive(Clone, Debug)]
pub(crate) struct RopeTable {
    cos: Tensor,
    sin: Tensor,
    pairs: RopePairs,
}

impl Rope {
    /// RoPE by `config`; `divisors`, one for each pair, divide the frequencies.
    pub fn new(config: &RopeConfig, pairs: RopePairs, divisors: Option<&[f32]>) -> Self {
        let dims = config.dims as f64;
        let base = f64::from(config.base);
        let divisor = |pair| divisors.and_then(|d: &[f32]| d.get(pair)).map_or(1.0, |&d| f64::from(d));
        let plain = |pair: usize| base.powf(-2.0 * pair as f64 / dims) / divisor(pair);
        let mut magnitude = f64::from(config.magnitude);
        let n_pairs = config.dims / 2;
        let frequencies = match config.scaling {
            RopeScaling::None => (0..n_pairs).map(plain).collect(),
            RopeScaling::Linear { factor } => {
                (0..n_pairs).map(|pair| plain(pair) / f64::from(factor)).collect()
            }
            RopeScaling::Yarn { factor } => {
                let factor = f64::from(factor);
                magnitude *= 1.0 + 0.1 * factor.ln();
                // The pair that turns so many times over the original context.
                let context = config.original_context as f64;
                let pair_of = |turns: f64| dims * (context / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
                let low = pair_of(YARN_TURNS_HIGH).floor().max(0.0);
                let high = pair_of(YARN_TURNS_LOW).ceil().min(dims - 1.0);
                let ramp = |pair: usize| {
                    let interpolated = (pair as f64 - low) / (high - low).max(0.001);
                    let interpolated = interpolated.clamp(0.0, 1.0);
                    plain(pair) * (interpolated / factor + 1.0 - interpolated)
                };
                (0..n_pairs).map(ramp).collect()
            }
        };
        Self { frequencies, magnitude, pairs }
    }

    /// The table for tokens at `positions`.
    pub fn table(&self, positions: &[usize], device: &Device) -> Result<RopeTable> {
        let shape = (positions.len(), self.frequencies.len());
        let mut cos = Vec::with_capacity(shape.0 * shape.1);
        let mut sin = Vec::with_capacity(shape.0 * shape.1);
        for &position in positions {
            for &frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push((c * self.magnitude) as f32);
                sin.push((s * self.magnitude) as f32);
            }
        }
        Ok(RopeTable {
            cos: Tensor::from_vec(cos, shape, device)?,
            sin: Tensor::from_vec(sin, shape, device)?,
            pairs: self.pairs,
        })
    }
}

impl RopeTable {
    /// Turns `x`, `[tokens, heads, head_dim]` f32, which nobody else uses.
    pub fn apply(&self, x: Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            let x = x.contiguous()?;
            x.inplace_op3(&self.cos, &self.sin, &HostRope(self.pairs))?;
            Ok(x)
        } else {
            self.apply_composed(&x)
        }
    }

    fn apply_composed(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, heads, head_dim) = x.dims3()?;
        let n_pairs = self.cos.dim(D::Minus1)?;
        let turned = x.narrow(D::Minus1, 0, 2 * n_pairs)?;
        let (cos, sin) = (self.cos.unsqueeze(1)?, self.sin.unsqueeze(1)?);
        let turn = |a: &Tensor, b: &Tensor| -> Result<(Tensor, Tensor)> {
            let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
            Ok((first, second))
        };
        let turned = match self.pairs {
            RopePairs::Halves => {
                let (a, b) = turn(
                    &turned.narrow(D::Minus1, 0, n_pairs)?,
                    &turned.narrow(D::Minus1, n_pairs, n_pairs)?,
                )?;
                Tensor::cat(&[a, b], D::Minus1)?
            }
            RopePairs::Adjacent => {
                let pairs = turned.contiguous()?.reshape((tokens, heads, n_pairs, 2))?;
                let (a, b) = turn(&pairs.narrow(3, 0, 1)?.squeeze(3)?, &pairs.narrow(3, 1, 1)?.squeeze(3)?)?;
                Tensor::stack(&[a, b], D::Minus1)?.reshape((tokens, heads, 2 * n_pairs))?
            }
        };
        if 2 * n_pairs == head_dim {
            return Ok(turned);
        }
        Tensor::cat(&[turned, x.narrow(D::Minus1, 2 * n_pairs, head_dim - 2 * n_pairs)?], D::Minus1)
    }
}

struct HostRope(RopePairs);

impl InplaceOp3 for HostRope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<()> {
        let (_, heads, head_dim) = x_layout.shape().dims3()?;
        let n_pairs = cos_layout.dims()[1];
        let x = host::slice_mut(x, x_layout)?;
        let cos = host::slice::<f32>(cos, cos_layout)?.chunks_exact(n_pairs);
        let sin = host::slice::<f32>(sin, sin_layout)?.chunks_exact(n_pairs);
        for ((token, cos), sin) in x.chunks_exact_mut(heads * head_dim).zip(cos).zip(sin) {
            for head in token.chunks_exact_mut(head_dim) {
                match self.0 {
                    RopePairs::Adjacent => {
                        for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                            let (a, b) = (pair[0], pair[1]);
                            pair[0] = a * cos - b * sin;
                            pair[1] = a * sin + b * cos;
                        }
                    }
                    RopePairs::Halves => {
                        let (first, second) = head.split_at_mut(n_pairs);
                        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Divisors;

    fn config(dims: usize, scaling: RopeScaling) -> RopeConfig {
        RopeConfig {
            dims,
            base: 10_000.0,
            scaling,
            magnitude: 1.25,
            original_context: 4096,
            divisors: Divisors::Never,
        }
    }

    #[test]
    fn both_ways_agree_and_lengths_stay() {
        for pairs in [RopePairs::Adjacent, RopePairs::Halves] {
            for dims in [8, 6] {
                let rope = Rope::new(&config(dims, RopeScaling::None), pairs, None);
                let table = rope.table(&[0, 7, 100_000], &Device::Cpu).unwrap();
                let x = Tensor::randn(0f32, 1.0, (3, 2, 8), &Device::Cpu).unwrap();
                let composed = table.apply_composed(&x).unwrap();
                let before: Vec<f32> = x.narrow(2, 6, 2).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let y = table.apply(x.copy().unwrap()).unwrap();
                let worst = (&y - composed).unwrap().abs().unwrap().max_all().unwrap();
                assert!(worst.to_scalar::<f32>().unwrap() < 1e-5);
                if dims == 6 {
                    let after: Vec<f32> =
                        y.narrow(2, 6, 2).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                    assert_eq!(before, after);
                } else {
                    let norm =
                        |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
                    assert!((norm(&y) / norm(&x) - 1.25).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn scaling_leaves_high_frequencies_and_divides_low_ones() {
        let plain = Rope::new(&config(64, RopeScaling::None), RopePairs::Halves, None);
        let linear = Rope::new(&config(64, RopeScaling::Linear { factor: 4.0 }), RopePairs::Halves, None);
        let yarn = Rope::new(&config(64, RopeScaling::Yarn { factor: 4.0 }), RopePairs::Halves, None);
        assert!((plain.frequencies[5] / linear.frequencies[5] - 4.0).abs() < 1e-12);
        assert_eq!(plain.frequencies[0], yarn.frequencies[0]);
        assert!((plain.frequencies[31] / yarn.frequencies[31] - 4.0).abs() < 1e-9);
        assert!(yarn.frequencies.windows(2).all(|pair| pair[0] > pair[1]));
        assert!((yarn.magnitude / plain.magnitude - (1.0 + 0.1 * 4f64.ln())).abs() < 1e-12);
        let divided = Rope::new(&config(64, RopeScaling::None), RopePairs::Halves, Some(&[2.0; 32]));
        assert!((plain.frequencies[9] / divided.frequencies[9] - 2.0).abs() < 1e-12);
    }
}
