//! Errors of file operations.

use crate::QuantError;
use exsa_core::gguf::{GgmlType, GgufError};
use std::io;

/// The reason why a file was not quantized. The output is incomplete then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The input is no usable GGUF.
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
    /// A tensor is quantized already.
    #[error(
        "tensor '{tensor}' is {dtype} already; quantize from F32, F16 or BF16, or allow a loss of quality by \
         `allow_requantize`"
    )]
    Requantize {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        dtype: GgmlType,
    },
    /// The importance matrix is of another model.
    #[error(
        "the importance matrix has {found} numbers for tensor '{tensor}', which needs {needed}: it is of \
         another model"
    )]
    ImportanceLength {
        /// Name of the tensor.
        tensor: String,
        /// Numbers in the matrix.
        found: usize,
        /// Columns times experts of the tensor.
        needed: u64,
    },
    /// The mixture is unusable without an importance matrix.
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
    /// The progress callback asked for the end.
    #[error("quantization was cancelled")]
    Cancelled,
}

/// The reason why an importance matrix was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportanceError {
    /// Reading failed.
    #[error("reading the importance matrix: {0}")]
    Io(#[from] io::Error),
    /// The file is a damaged GGUF.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file is neither form of an importance matrix, or damaged.
    #[error("no importance matrix: {0}")]
    Format(String),
    /// A number is not usable as an importance.
    #[error(
        "importance of tensor '{tensor}': number {index} is {value}; finite numbers from 0 on are allowed"
    )]
    Value {
        /// Name of the tensor.
        tensor: String,
        /// Place of the number.
        index: usize,
        /// The number.
        value: f32,
    },
}
