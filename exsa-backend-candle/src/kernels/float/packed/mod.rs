//! Products of weights that are floats in the file: F32, F16 and BF16.
//!
//! Weights are packed once, when a model is loaded, into tiles of 16 rows in the type of the file
//! ([`FloatMatrix`]); activations stay f32, reordered into panels of a few rows ([`FloatActivations`]). A
//! kernel multiplies one panel with one or two tiles over a block of `k`, all sums in registers.
//!
//! # Arithmetic
//!
//! `k` is cut into blocks of 256. The products of a block are added up in the order of `k`, from zero, by
//! fused multiply-adds in f32; the sums of the blocks are added up in their order. Every output is computed
//! by these operations, whatever the instruction set, the rows of the batch and the threads: its bits are
//! always the same.

mod activations;
mod element;
mod kernel;
mod low_rank;
mod matmul;
mod matrix;
mod sets;
#[cfg(test)]
mod tests;

pub(crate) use activations::{FloatActivations, FloatSizes};
pub(crate) use element::FloatType;
pub(crate) use low_rank::{LowRank, LowRankProducts, LowRankScratch, LowRankSizes, RowGroup};
pub(crate) use matmul::{FloatProduct, multiply_float_groups, multiply_floats};
pub(crate) use matrix::FloatMatrix;
pub(crate) use sets::{FloatSet, fma_peak};
