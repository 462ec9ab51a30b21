//! Rotary position embedding.

use crate::kernels::float::rows::RopeTable;
use candle_core::{D, Device, Result, Tensor};
use exsa_models::{RopeConfig, RopeFrequencies, RopePairs};

/// Rotation per token of every pair of rotary dimensions.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    /// Radians per token, `[dims / 2]`.
    frequencies: Vec<f64>,
    magnitude: f64,
    pairs: RopePairs,
}

/// Tensors of cosines and sines for the positions in a batch: `[tokens, dims / 2]` f32 each.
#[derive(Clone, Debug)]
pub(crate) struct RopeTensors {
    cos: Tensor,
    sin: Tensor,
    pairs: RopePairs,
}

/// Cosines and sines in host memory, `[tokens][dims / 2]` each.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostRopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// RoPE by `config`; `freq_factors`, one for each pair, divide the frequencies where they apply.
    pub fn new(config: &RopeConfig, pairs: RopePairs, freq_factors: Option<&[f32]>) -> Self {
        let RopeFrequencies { radians, magnitude } = config.frequencies(freq_factors);
        Self { frequencies: radians, magnitude, pairs }
    }

    /// Cosines and sines for tokens at `positions`, on the host.
    pub fn host_table(&self, positions: impl IntoIterator<Item = usize>, table: &mut HostRopeTable) {
        table.cos.clear();
        table.sin.clear();
        for position in positions {
            for &frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                table.cos.push((c * self.magnitude) as f32);
                table.sin.push((s * self.magnitude) as f32);
            }
        }
    }

    /// The table for tokens at `positions`.
    pub fn table(&self, positions: &[usize], device: &Device) -> Result<RopeTensors> {
        let mut table = HostRopeTable::default();
        self.host_table(positions.iter().copied(), &mut table);
        let shape = (positions.len(), self.frequencies.len());
        Ok(RopeTensors {
            cos: Tensor::from_vec(table.cos, shape, device)?,
            sin: Tensor::from_vec(table.sin, shape, device)?,
            pairs: self.pairs,
        })
    }

    /// View of a table in host memory, for the kernels.
    pub fn view<'a>(&self, table: &'a HostRopeTable) -> RopeTable<'a> {
        RopeTable { cos: &table.cos, sin: &table.sin, n_pairs: self.frequencies.len(), pairs: self.pairs }
    }

    /// A table that rotates nothing, for layers without RoPE.
    pub fn absent(&self) -> RopeTable<'static> {
        RopeTable { cos: &[], sin: &[], n_pairs: 0, pairs: self.pairs }
    }

    /// Empty table in host memory with capacity for `tokens` tokens.
    pub fn host_table_for(&self, tokens: usize) -> HostRopeTable {
        let empty = || Vec::with_capacity(tokens * self.frequencies.len());
        HostRopeTable { cos: empty(), sin: empty() }
    }
}

impl HostRopeTable {
    /// Bytes of a table for `tokens` tokens and `pairs` pairs of rotary dimensions.
    pub fn bytes(tokens: usize, pairs: usize) -> u64 {
        (2 * size_of::<f32>() * tokens * pairs) as u64
    }
}

impl RopeTensors {
    /// Applies RoPE to `x`, `[tokens, heads, head_dim]` f32.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, heads, head_dim) = x.dims3()?;
        let n_pairs = self.cos.dim(D::Minus1)?;
        let rotated = x.narrow(D::Minus1, 0, 2 * n_pairs)?;
        let (cos, sin) = (self.cos.unsqueeze(1)?, self.sin.unsqueeze(1)?);
        let rotate = |a: &Tensor, b: &Tensor| -> Result<(Tensor, Tensor)> {
            let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
            Ok((first, second))
        };
        let rotated = match self.pairs {
            RopePairs::Neox => {
                let (a, b) = rotate(
                    &rotated.narrow(D::Minus1, 0, n_pairs)?,
                    &rotated.narrow(D::Minus1, n_pairs, n_pairs)?,
                )?;
                Tensor::cat(&[a, b], D::Minus1)?
            }
            RopePairs::Interleaved => {
                let pairs = rotated.contiguous()?.reshape((tokens, heads, n_pairs, 2))?;
                let (a, b) =
                    rotate(&pairs.narrow(3, 0, 1)?.squeeze(3)?, &pairs.narrow(3, 1, 1)?.squeeze(3)?)?;
                Tensor::stack(&[a, b], D::Minus1)?.reshape((tokens, heads, 2 * n_pairs))?
            }
        };
        if 2 * n_pairs == head_dim {
            return Ok(rotated);
        }
        Tensor::cat(&[rotated, x.narrow(D::Minus1, 2 * n_pairs, head_dim - 2 * n_pairs)?], D::Minus1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::float::rows::{HeadNorm, HeadRows, apply_rope};
    use crate::kernels::memory::team::Team;
    use exsa_models::{FreqFactors, RopeScaling};

    fn config(dims: usize) -> RopeConfig {
        RopeConfig {
            dims,
            base: 10_000.0,
            scaling: RopeScaling::None,
            magnitude: 1.25,
            original_context: 4096,
            freq_factors: FreqFactors::Never,
        }
    }

    #[test]
    fn both_ways_agree_and_lengths_stay() {
        for pairs in [RopePairs::Interleaved, RopePairs::Neox] {
            for dims in [8, 6] {
                let rope = Rope::new(&config(dims), pairs, None);
                let positions = [0, 7, 100_000];
                let x = Tensor::randn(0f32, 1.0, (3, 2, 8), &Device::Cpu).unwrap();
                let before: Vec<f32> = x.narrow(2, 6, 2).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let y = rope.table(&positions, &Device::Cpu).unwrap().apply(&x).unwrap();
                let mut table = rope.host_table_for(3);
                rope.host_table(positions, &mut table);
                let mut host: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
                let norm = HeadNorm::Absent;
                let rows = HeadRows { start: 0, stride: 16, heads: 2, head_dim: 8, norm };
                let mut team = Team::new(1).unwrap();
                apply_rope(&mut host, rows, 3, None, rope.view(&table), &mut team);
                let host = Tensor::from_vec(host, (3, 2, 8), &Device::Cpu).unwrap();
                let worst = (&y - host).unwrap().abs().unwrap().max_all().unwrap();
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
}
