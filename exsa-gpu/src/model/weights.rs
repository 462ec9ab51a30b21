//! Weights on the device.

use crate::device::{Device, HostBytes};
use crate::kernel::WeightType;
use exsa_core::backend::{Fingerprint, LoadProgress};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, TensorInfo};
use exsa_models::tensors::{self, Norm, Projection};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A matrix in its blocks, `[rows, cols]`.
#[derive(Debug)]
pub(crate) struct Matrix<D: Device> {
    pub buffer: D::Buffer,
    pub dtype: WeightType,
    pub rows: u32,
    pub cols: u32,
}

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear<D: Device> {
    pub weight: Arc<Matrix<D>>,
    /// f32, `[rows]`.
    pub bias: Option<D::Buffer>,
}

/// Weights of a norm of the hidden state.
#[derive(Debug)]
pub(crate) struct NormWeights<D: Device> {
    /// f32, `[n_embd]`.
    pub weight: D::Buffer,
    /// f32, `[n_embd]`.
    pub bias: Option<D::Buffer>,
    /// Layer normalization, not RMSNorm.
    pub layer: bool,
}

/// Puts the tensors of a file on a device.
pub(crate) struct Loader<'a, 'p, D: Device> {
    device: &'a D,
    file: &'a HostBytes,
    progress: &'a mut LoadProgress<'p>,
    placed: BTreeMap<String, Arc<Matrix<D>>>,
    fingerprint: Fingerprint,
    done: u64,
    total: u64,
}

impl<'a, 'p, D: Device> Loader<'a, 'p, D> {
    pub fn new(
        device: &'a D,
        gguf: &Gguf,
        file: &'a HostBytes,
        progress: &'a mut LoadProgress<'p>,
    ) -> Result<Self, LoadError> {
        let total = gguf.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
        progress.report(0, total)?;
        let (placed, fingerprint) = (BTreeMap::new(), Fingerprint::default());
        Ok(Self { device, file, progress, placed, fingerprint, done: 0, total })
    }

    /// Fingerprint of the tensors that were loaded.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// A matrix; one that is asked for again is the same.
    pub fn matrix(&mut self, matrix: tensors::Matrix<'_>) -> Result<Arc<Matrix<D>>, LoadError> {
        let tensors::Matrix { tensor, rows, columns } = matrix;
        if let Some(placed) = self.placed.get(&tensor.name) {
            return Ok(Arc::clone(placed));
        }
        let dtype = check_matrix(tensor)?;
        let size = |n: usize| u32::try_from(n).map_err(|_| damaged(tensor));
        let (rows, cols) = (size(rows)?, size(columns)?);
        let range = self.take(tensor)?;
        let buffer = self.device.place(self.file, range)?;
        let matrix = Arc::new(Matrix { buffer, dtype, rows, cols });
        self.placed.insert(tensor.name.clone(), Arc::clone(&matrix));
        Ok(matrix)
    }

    pub fn linear(&mut self, projection: Projection<'_>) -> Result<Linear<D>, LoadError> {
        let weight = self.matrix(projection.weight)?;
        let bias = projection.bias.map(|bias| self.vector(bias)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// A vector as f32.
    pub fn vector(&mut self, vector: tensors::Vector<'_>) -> Result<D::Buffer, LoadError> {
        let values = self.values(vector)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let range = 0..bytes.len();
        let bytes: HostBytes = Arc::new(bytes);
        Ok(self.device.place(&bytes, range)?)
    }

    pub fn norm(&mut self, norm: Norm<'_>) -> Result<NormWeights<D>, LoadError> {
        Ok(match norm {
            Norm::Rms(weight) => NormWeights { weight: self.vector(weight)?, bias: None, layer: false },
            Norm::Layer { weight, bias } => NormWeights {
                weight: self.vector(weight)?,
                bias: bias.map(|bias| self.vector(bias)).transpose()?,
                layer: true,
            },
        })
    }

    /// The values of a vector.
    pub fn values(&mut self, vector: tensors::Vector<'_>) -> Result<Vec<f32>, LoadError> {
        let tensor = vector.tensor;
        let range = self.take(tensor)?;
        let bytes = (**self.file).as_ref().get(range).ok_or_else(|| damaged(tensor))?;
        let mut values = vec![0.0; vector.len];
        exsa_quant::dequantize(tensor.dtype, bytes, &mut values)
            .map_err(|error| LoadError::Tensor { name: tensor.name.clone(), problem: error.to_string() })?;
        Ok(values)
    }

    /// The place of a tensor in the file; counts it as loaded.
    fn take(&mut self, tensor: &TensorInfo) -> Result<Range<usize>, LoadError> {
        let place = |at: u64| usize::try_from(at).map_err(|_| damaged(tensor));
        let end = tensor.offset.checked_add(tensor.bytes).ok_or_else(|| damaged(tensor))?;
        let range = place(tensor.offset)?..place(end)?;
        let data = (**self.file).as_ref().get(range.clone()).ok_or_else(|| damaged(tensor))?;
        self.fingerprint.update(tensor.name.as_bytes());
        self.fingerprint.update(format!("{:?} {:?}", tensor.shape, tensor.dtype).as_bytes());
        self.fingerprint.update(&data[..data.len().min(64)]);
        self.fingerprint.update(&data[data.len().saturating_sub(64)..]);
        self.done = self.done.saturating_add(tensor.bytes);
        self.progress.report(self.done.min(self.total), self.total)?;
        Ok(range)
    }
}

/// The type of a matrix, if its products can be computed.
pub(crate) fn check_matrix(tensor: &TensorInfo) -> Result<WeightType, LoadError> {
    let Some(dtype) = WeightType::of(tensor.dtype) else {
        let names: Vec<&str> = WeightType::ALL.iter().map(|weight| weight.dtype().name()).collect();
        return Err(LoadError::Unsupported {
            what: format!("tensor '{}' of type {} on a GPU", tensor.name, tensor.dtype),
            supported: names.join(", "),
        });
    };
    let (multiple, columns) = (dtype.columns_multiple(), tensor.shape.first().copied().unwrap_or(0));
    if !columns.is_multiple_of(multiple) {
        return Err(LoadError::Unsupported {
            what: format!("tensor '{}' with rows of {columns} values on a GPU", tensor.name),
            supported: format!("multiples of {multiple}"),
        });
    }
    Ok(dtype)
}

/// Whether vectors may have this type.
pub(crate) fn check_vector(tensor: &TensorInfo) -> Result<(), LoadError> {
    match tensor.dtype {
        GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 | GgmlType::F64 => Ok(()),
        dtype if WeightType::of(dtype).is_some() => Ok(()),
        dtype => Err(LoadError::Unsupported {
            what: format!("tensor '{}' of type {dtype}", tensor.name),
            supported: "floats".to_owned(),
        }),
    }
}

fn damaged(tensor: &TensorInfo) -> LoadError {
    LoadError::Tensor { name: tensor.name.clone(), problem: "it lies outside of the file".to_owned() }
}
