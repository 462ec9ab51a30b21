//! Vectors of weights: norms and biases.

use crate::tensor_values as values;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// A vector of f32, for passes over tensors and for passes on the host.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    tensor: Tensor,
    /// Empty if the tensor is on a device.
    values: Arc<[f32]>,
}

impl Vector {
    /// Of `tensor`, `[len]` f32.
    pub fn new(tensor: Tensor) -> Result<Self> {
        let on_host = tensor.device().is_cpu();
        let values =
            if on_host { values::read(&tensor, |values: &[f32]| values.into())? } else { Arc::default() };
        Ok(Self { tensor, values })
    }

    /// Bytes of a vector of `len` values in host memory, which is there as a tensor and as a slice.
    pub fn bytes(len: u64) -> u64 {
        2 * len * size_of::<f32>() as u64
    }

    /// As a tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The values, of a vector in host memory.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
