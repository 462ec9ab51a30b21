//! Kernels on the CPU, on slices of host memory.
//!
//! [`memory`] and [`simd`] are what the others are made of; [`float`] works on f32 and on the KV cache,
//! [`quantized`] on the weights of a model.

pub mod float;
mod matrix_shape;
pub mod memory;
pub mod quantized;
pub mod simd;

pub(crate) use matrix_shape::MatrixShape;

use std::ops::Range;

/// Version of the bytes that [`quantized`] and [`float`] pack weights to, which are the same for all
/// instruction sets. It goes up with every change to them, since packed weights are kept in files.
pub const LAYOUT_VERSION: u32 = 1;

/// Consecutive rows that are multiplied with the matrix of the same expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertRows {
    /// Index of the matrix in its stack.
    pub expert: usize,
    /// The rows, not none.
    pub rows: Range<usize>,
}
