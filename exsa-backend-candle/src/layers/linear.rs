//! Projections.

use super::vector::Vector;
use crate::kernels::float::packed::{FloatActivations, FloatMatrix, FloatProduct, multiply_floats};
use crate::kernels::float::rows;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::activations::Activations as QuantizedActivations;
use crate::kernels::quantized::{Isa, PackedMatrix, Product, multiply_all};
use crate::mapped_weights::MappedRows;
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Module, Result, Tensor};
use std::sync::Arc;

/// A projection `y = W x + b` with a weight of any type that a file can have.
#[derive(Clone)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Vector>,
}

#[derive(Clone)]
enum Weight {
    /// Packed for our own products, on the CPU.
    Packed(Arc<PackedMatrix>, Isa),
    /// Floats, packed for our own products, on the CPU.
    Float(Arc<FloatMatrix>, Isa),
    /// In place in host memory, of a type that is multiplied in f32, and the number of its rows.
    Wide(Arc<MappedRows>, usize),
    /// On a device, where candle widens floats to f32.
    Device(QMatMul),
}

/// Inputs of projections on the CPU in the forms that their weights want, kept between passes.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    pub(super) quantized: QuantizedActivations,
    pub(super) float: FloatActivations,
}

impl Linear {
    /// A projection by `weight`, `[out, in]`, and `bias`, `[out]` f32, as an operation on candle's tensors.
    pub fn device(weight: Arc<QTensor>, bias: Option<Vector>) -> Result<Self> {
        Ok(Self { weight: Weight::Device(QMatMul::from_arc(weight)?), bias })
    }

    /// A projection by a packed `weight` on the CPU.
    pub fn packed(weight: PackedMatrix, isa: Isa, bias: Option<Vector>) -> Self {
        Self { weight: Weight::Packed(Arc::new(weight), isa), bias }
    }

    /// A projection by packed floats on the CPU.
    pub fn float(weight: FloatMatrix, isa: Isa, bias: Option<Vector>) -> Self {
        Self { weight: Weight::Float(Arc::new(weight), isa), bias }
    }

    /// A projection by `weight`, of `rows` rows, on the CPU.
    pub fn wide(weight: MappedRows, rows: usize, bias: Option<Vector>) -> Self {
        Self { weight: Weight::Wide(Arc::new(weight), rows), bias }
    }

    /// Projects the rows of `x`, `[rows, in]`, on a device: `[rows, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Weight::Device(weight) => weight.forward(x)?,
            Weight::Packed(..) | Weight::Float(..) | Weight::Wide(..) => {
                candle_core::bail!("weights that are laid out for the CPU, in a pass over tensors")
            }
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias.tensor()),
            None => Ok(y),
        }
    }

    /// Projects the rows of `x`, `[m, in]`, on the CPU by several projections to an output each, `[m, out]`.
    /// Those that can share activations in one form are one step of the team.
    pub fn multiply<const N: usize>(
        mut outputs: [(&Self, &mut [f32]); N],
        x: &[f32],
        m: usize,
        team: &mut Team,
        activations: &mut Activations,
    ) -> Result<()> {
        let mut done = [false; N];
        for first in 0..N {
            let linear = outputs[first].0;
            if done[first] {
                continue;
            }
            match &linear.weight {
                Weight::Packed(weight, isa) => {
                    weight.quantize(x, team, &mut activations.quantized);
                    let mut products = [const { None }; N];
                    for (i, (linear, out)) in outputs.iter_mut().enumerate().skip(first) {
                        if let Weight::Packed(other, _) = &linear.weight
                            && !done[i]
                            && other.shares_activations(weight)
                        {
                            products[i] = Some(Product::new(other, out));
                            done[i] = true;
                        }
                    }
                    multiply_all(*isa, &products, &mut activations.quantized, team);
                }
                Weight::Float(weight, isa) => {
                    activations.float.fill(x, weight.k(), *isa, team);
                    let mut products = [const { None }; N];
                    for (i, (linear, out)) in outputs.iter_mut().enumerate().skip(first) {
                        if let Weight::Float(other, _) = &linear.weight
                            && !done[i]
                            && other.k() == weight.k()
                        {
                            products[i] = Some(FloatProduct::new(other, out));
                            done[i] = true;
                        }
                    }
                    multiply_floats(*isa, &products, &mut activations.float, team);
                }
                Weight::Wide(weight, n) => weight.multiply(0, (m, *n), x, outputs[first].1, team),
                Weight::Device(_) => candle_core::bail!("weights on a device, in a pass on the host"),
            }
        }
        for (linear, out) in outputs {
            if let Some(bias) = &linear.bias {
                rows::add_bias(out, bias.values());
            }
        }
        Ok(())
    }
}
