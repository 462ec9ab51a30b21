//! Projections.

use super::host;
use crate::blocks::WideRows;
use crate::compute::Compute;
use crate::kernels::{Isa, PackedMatrix};
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Device, Module, Result, Tensor};
use std::sync::Arc;

/// A projection `y = W x + b` with a weight of any type that a file can have.
#[derive(Clone)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Clone)]
enum Weight {
    /// Packed for our own products, on the CPU.
    Packed(Arc<PackedMatrix>, Isa),
    /// Where they lie in host memory, `[out, in]`, of a type that is multiplied in f32.
    Wide(Arc<dyn WideRows>, [usize; 2]),
    /// In host memory, of another type that has no packed form here.
    Host(Arc<QTensor>),
    /// On a device, where candle widens floats to f32.
    Device(QMatMul),
}

impl Linear {
    /// A projection by `weight`, `[out, in]`, and `bias`, `[out]` f32.
    pub fn new(weight: Arc<QTensor>, bias: Option<Tensor>) -> Result<Self> {
        let weight = if weight.device().is_cpu() {
            Weight::Host(weight)
        } else {
            Weight::Device(QMatMul::from_arc(weight)?)
        };
        Ok(Self { weight, bias })
    }

    /// A projection by a packed `weight` on the CPU.
    pub fn packed(weight: PackedMatrix, isa: Isa, bias: Option<Tensor>) -> Self {
        Self { weight: Weight::Packed(Arc::new(weight), isa), bias }
    }

    /// A projection by `weight`, `[out, in]` as `shape` says, on the CPU.
    pub fn wide(weight: Arc<dyn WideRows>, shape: [usize; 2], bias: Option<Tensor>) -> Self {
        Self { weight: Weight::Wide(weight, shape), bias }
    }

    /// Projects the rows of `x`: `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: &Tensor, compute: &Compute) -> Result<Tensor> {
        let [y] = Self::forward_all([self], x, compute)?;
        Ok(y)
    }

    /// Projects `x` by several projections at once, so that it is quantized once for those that can share it.
    pub fn forward_all<const N: usize>(
        all: [&Self; N],
        x: &Tensor,
        compute: &Compute,
    ) -> Result<[Tensor; N]> {
        let mut outputs = Vec::with_capacity(N);
        let mut quantized_for: Option<&PackedMatrix> = None;
        for linear in all {
            let y = match &linear.weight {
                Weight::Wide(weight, shape) => widened(weight.as_ref(), *shape, x, compute)?,
                Weight::Host(weight) => x.contiguous()?.apply_op1_no_bwd(weight.as_ref())?,
                Weight::Device(weight) => weight.forward(x)?,
                Weight::Packed(weight, isa) => {
                    let shared = quantized_for.is_some_and(|other| weight.shares_activations(other));
                    quantized_for = Some(weight);
                    multiply(weight, *isa, x, shared, compute)?
                }
            };
            outputs.push(linear.add_bias(y)?);
        }
        outputs.try_into().map_err(|_| candle_core::Error::Msg("as many outputs as projections".to_owned()))
    }

    fn add_bias(&self, y: Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// `x · Wᵀ`; `quantized` says that the session's activations are those of `x` already.
fn multiply(
    weight: &PackedMatrix,
    isa: Isa,
    x: &Tensor,
    quantized: bool,
    compute: &Compute,
) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    if width != weight.k() {
        candle_core::bail!("{width} values for a matrix of {} columns", weight.k());
    }
    let (mut team, mut activations) = (compute.team(), compute.activations());
    if !quantized {
        host::read(&x.contiguous()?, |x: &[f32]| weight.quantize(x, &mut team, &mut activations))?;
    }
    let mut out = vec![0.0; rows * weight.n()];
    weight.multiply(isa, &activations, &mut team, &mut out);
    Tensor::from_vec(out, (rows, weight.n()), &Device::Cpu)
}

/// `x · Wᵀ` in f32, where `[n, k]` is the shape of `W`.
fn widened(weight: &dyn WideRows, [n, k]: [usize; 2], x: &Tensor, compute: &Compute) -> Result<Tensor> {
    let (m, width) = x.dims2()?;
    if width != k {
        candle_core::bail!("{width} values for a matrix of {k} columns");
    }
    let mut out = vec![0.0; m * n];
    host::read(&x.contiguous()?, |x: &[f32]| weight.multiply((m, k, n), x, &mut out, &mut compute.team()))?;
    Tensor::from_vec(out, (m, n), &Device::Cpu)
}
