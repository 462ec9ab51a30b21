//! Errors of block conversions.

use exsa_core::gguf::GgmlType;

/// The reason why values were not converted from or to blocks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The type cannot be read as weights.
    #[error("{0} cannot be dequantized: it holds integers, not weights")]
    NotWeights(GgmlType),
    /// The number of values is no multiple of the block length.
    #[error("{values} values are no whole blocks; {dtype} has blocks of {}", dtype.block_len())]
    PartialBlock {
        /// Type of the blocks.
        dtype: GgmlType,
        /// Number of values.
        values: usize,
    },
    /// The number of bytes does not fit the number of values.
    #[error("{values} values of {dtype} take {needed} bytes, not {bytes}")]
    Bytes {
        /// Type of the blocks.
        dtype: GgmlType,
        /// Number of values.
        values: usize,
        /// Bytes that they take.
        needed: u128,
        /// Bytes given.
        bytes: usize,
    },
    /// The type cannot be quantized to.
    #[error("values cannot be quantized to {0}")]
    NotQuantizable(GgmlType),
    /// The number of values is no multiple of the number of columns.
    #[error("{values} values are no whole rows of {columns} columns")]
    PartialRow {
        /// Number of values.
        values: usize,
        /// Columns of a row.
        columns: usize,
    },
    /// The importance does not fit the values.
    #[error("importance: {0}")]
    Importance(String),
    /// A value has no nearest level.
    #[error("row {row}, column {column} is {value}; finite values are allowed")]
    NotFinite {
        /// Row of the value, from 0 on.
        row: usize,
        /// Column of the value, from 0 on.
        column: usize,
        /// The value.
        value: f32,
    },
}
