//! Errors of file operations.

use crate::QuantError;
use exsa_core::gguf::{GgmlType, GgufError};
use std::io;

/// Error of quantizing a file. The output is then incomplete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The input is not a valid GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Reading the input failed.
    #[error("reading tensor '{tensor}': {source}")]
    Read {
        /// Name of the tensor.
        tensor: String,
        /// The reader's error.
        source: io::Error,
    },
    /// Writing the output failed.
    #[error("writing the output: {0}")]
    Write(#[source] io::Error),
    /// A tensor is already quantized.
    #[error(
        "tensor '{tensor}' is already {dtype}; quantize from F32, F16 or BF16, or accept a loss of quality with \
         `allow_requantize`"
    )]
    Requantize {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        dtype: GgmlType,
    },
    /// The importance matrix belongs to another model.
    #[error(
        "the importance matrix has {found} numbers for tensor '{tensor}', which needs {needed}: it belongs \
         to another model"
    )]
    ImportanceLength {
        /// Name of the tensor.
        tensor: String,
        /// Numbers in the matrix.
        found: usize,
        /// Columns times experts of the tensor.
        needed: u64,
    },
    /// The mixture requires an importance matrix.
    #[error("tensor '{tensor}' would be {dtype} in a {mixture} file, which needs an importance matrix")]
    ImportanceMissing {
        /// Name of the tensor.
        tensor: String,
        /// The type it would get.
        dtype: GgmlType,
        /// The mixture.
        mixture: super::Mixture,
    },
    /// A tensor's values cannot be converted.
    #[error("tensor '{tensor}', rows from {row} on: {source}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// First row of the part that was converted.
        row: u64,
        /// The reason.
        source: QuantError,
    },
    /// The progress callback cancelled the conversion.
    #[error("quantization was cancelled")]
    Cancelled,
}

/// Error of reading an importance matrix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportanceError {
    /// Reading failed.
    #[error("reading the importance matrix: {0}")]
    Io(#[from] io::Error),
    /// The file is a damaged GGUF.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file has neither format of an importance matrix, or is damaged.
    #[error("not an importance matrix: {0}")]
    Format(String),
    /// A number is not a valid importance.
    #[error(
        "importance of tensor '{tensor}': number {index} is {value}; finite numbers of at least 0 are allowed"
    )]
    Value {
        /// Name of the tensor.
        tensor: String,
        /// Index of the number.
        index: usize,
        /// The number.
        value: f32,
    },
}
