//! Errors of block conversions.

use exsa_core::gguf::GgmlType;

/// Error of converting values from or to blocks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The type cannot be read as weights.
    #[error("{0} cannot be dequantized: it holds integers, not weights")]
    NotWeights(GgmlType),
    /// The number of values is not a multiple of the block length.
    #[error("{values} values are not whole blocks; {dtype} has blocks of {}", dtype.block_len())]
    PartialBlock {
        /// Type of the blocks.
        dtype: GgmlType,
        /// Number of values.
        values: usize,
    },
    /// The number of bytes does not match the number of values.
    #[error("{values} values of {dtype} take {needed} bytes, not {bytes}")]
    Bytes {
        /// Type of the blocks.
        dtype: GgmlType,
        /// Number of values.
        values: usize,
        /// Bytes that they take.
        needed: u128,
        /// Bytes passed.
        bytes: usize,
    },
    /// Quantizing to the type is not supported.
    #[error("values cannot be quantized to {0}")]
    NotQuantizable(GgmlType),
    /// The number of values is not a multiple of the number of columns.
    #[error("{values} values are not whole rows of {columns} columns")]
    PartialRow {
        /// Number of values.
        values: usize,
        /// Columns of a row.
        columns: usize,
    },
    /// The importance is invalid or does not match the values.
    #[error("importance: {0}")]
    Importance(String),
    /// A value is not finite.
    #[error("row {row}, column {column} is {value}; finite values are allowed")]
    NotFinite {
        /// Row of the value, from 0.
        row: usize,
        /// Column of the value, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
}
