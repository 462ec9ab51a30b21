//! Projections.

use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Error, Module, Result, Tensor};
use std::sync::Arc;

/// A projection `y = W x + b` with a weight of any type that a file can have.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Clone, Debug)]
enum Weight {
    /// In host memory, of any type.
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

    /// Projects the rows of `x`: `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Weight::Host(weight) => x.contiguous()?.apply_op1_no_bwd(weight.as_ref())?,
            Weight::Device(weight) => weight.forward(x)?,
        };
        self.add_bias(y)
    }

    /// Projects `x` by several projections, at once where candle can: that saves quantizing it for each of them.
    pub fn forward_all<const N: usize>(all: [&Self; N], x: &Tensor) -> Result<[Tensor; N]> {
        let host = all.iter().map(|linear| match &linear.weight {
            Weight::Host(weight) => Some(weight.as_ref()),
            Weight::Device(_) => None,
        });
        let outputs = match host.collect::<Option<Vec<_>>>() {
            Some(weights) => QTensor::gemv_fused_shared_lhs(&weights, &x.contiguous()?)?,
            None => None,
        };
        let outputs: Vec<Tensor> = match outputs {
            Some(outputs) => {
                outputs.into_iter().zip(all).map(|(y, linear)| linear.add_bias(y)).collect::<Result<_>>()?
            }
            None => all.iter().map(|linear| linear.forward(x)).collect::<Result<_>>()?,
        };
        outputs.try_into().map_err(|_| Error::Msg("not as many outputs as projections".to_owned()))
    }

    fn add_bias(&self, y: Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
