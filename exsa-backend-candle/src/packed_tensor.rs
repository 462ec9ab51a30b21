//! A matrix of weights, packed for the kernels of its type.

use crate::kernels::MatrixShape;
use crate::kernels::float::packed::{FloatMatrix, FloatType};
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::memory::weight_memory::WeightMemory;
use crate::kernels::quantized::{PackedMatrix, PackedType};
use crate::mapping::Mapping;
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, TensorInfo};
use std::ops::Range;

/// Bytes of a mapped file that are asked for ahead.
const AHEAD_BYTES: usize = 16 << 20;

/// A packed matrix, or a stack of them.
pub(crate) enum PackedTensor {
    Quantized(PackedMatrix),
    Float(FloatMatrix),
}

impl PackedTensor {
    /// Bytes of packed matrices of that shape of type `dtype`; `None` where the type has no packed form.
    pub fn packed_bytes(dtype: GgmlType, shape: MatrixShape) -> Option<usize> {
        match (PackedType::of(dtype), FloatType::of(dtype)) {
            (Some(kind), _) => Some(PackedMatrix::packed_bytes(kind, shape)),
            (None, Some(kind)) => Some(FloatMatrix::packed_bytes(kind, shape)),
            (None, None) => None,
        }
    }

    /// Packs `tensor`, whose bytes are `place` of `mapping`, into `memory`. Calls `done` with the bytes of
    /// each part, which can end it.
    pub fn pack(
        tensor: &TensorInfo,
        shape: MatrixShape,
        (mapping, place): (&Mapping, Range<usize>),
        team: &mut Team,
        memory: &mut Arena,
        mut done: impl FnMut(u64) -> Result<(), LoadError>,
    ) -> Result<Self, LoadError> {
        let (start, len) = (place.start, place.len());
        let data = mapping.bytes().get(place).ok_or_else(|| damaged(tensor))?;
        mapping.fetch(start, len.min(2 * AHEAD_BYTES));
        let part_done = |part: Range<usize>| {
            mapping.release(start + part.start, part.len());
            let ahead = part.end + AHEAD_BYTES;
            mapping.fetch(start + ahead.min(len), AHEAD_BYTES.min(len.saturating_sub(ahead)));
            done(part.len() as u64)
        };
        let dtype = tensor.dtype;
        let packed = if PackedMatrix::supports(dtype) {
            let packed = PackedMatrix::pack_by_parts(dtype, data, shape, team, memory, part_done);
            packed.map(|packed| packed.map(|packed| packed.map(Self::Quantized)))
        } else {
            let packed = FloatMatrix::pack_by_parts(dtype, data, shape, team, memory, part_done);
            packed.map(|packed| packed.map(|packed| packed.map(Self::Float)))
        };
        let memory = |_| LoadError::Memory { what: "packed weights", needed: tensor.bytes, available: 0 };
        packed.map_err(memory)?.ok_or_else(|| damaged(tensor))?
    }

    /// The matrices whose packed bytes are `data`; `None` if they are not as many as they have.
    pub fn from_packed(dtype: GgmlType, shape: MatrixShape, data: WeightMemory) -> Option<Self> {
        if PackedMatrix::supports(dtype) {
            PackedMatrix::from_packed(dtype, shape, data).map(Self::Quantized)
        } else {
            FloatMatrix::from_packed(dtype, shape, data).map(Self::Float)
        }
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Quantized(matrix) => matrix.bytes(),
            Self::Float(matrix) => matrix.bytes(),
        }
    }
}

/// The error of a tensor whose bytes are not those that its type and shape call for.
pub(crate) fn damaged(tensor: &TensorInfo) -> LoadError {
    LoadError::Tensor {
        name: tensor.name.clone(),
        problem: format!("its {} bytes at offset {} cannot be used", tensor.bytes, tensor.offset),
    }
}
