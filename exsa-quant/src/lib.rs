//! Quantization of GGUF tensors and files.
//!
//! [`dequantize()`] converts blocks of every ggml type in GGUF files to f32, [`quantize()`] converts rows of
//! f32 to blocks of most types, and [`quantize_gguf`] converts whole files to the usual mixtures (`Q4_K_M`),
//! optionally with an [`ImportanceMatrix`].
//!
//! The layouts and codebooks are those of ggml's `ggml-common.h` and `ggml-quants.c`; [`codebook`] exports
//! the tables, for use in kernels. The modules of the formats document the fields of each block.
//!
//! ```
//! use exsa_core::gguf::GgmlType;
//!
//! let row: Vec<f32> = (0..32).map(|i| i as f32 / 31.0).collect();
//! let mut blocks = Vec::new();
//! exsa_quant::quantize(GgmlType::Q8_0, &row, 32, None, &mut blocks)?;
//! assert_eq!(blocks.len(), 34);
//! let mut values = [0.0; 32];
//! exsa_quant::dequantize(GgmlType::Q8_0, &blocks, &mut values)?;
//! assert!(row.iter().zip(values).all(|(x, y)| (x - y).abs() < 0.005));
//! # Ok::<(), exsa_quant::QuantError>(())
//! ```
#![forbid(unsafe_code)]

pub mod codebook;
mod dequantize;
mod error;
mod file;
mod format;
mod quantize;

pub use dequantize::dequantize;
pub use error::QuantError;
pub use file::{
    CalibrationText, ImportanceError, ImportanceMatrix, Mixture, Progress, QuantizeError, QuantizeOptions,
    QuantizeSummary, planned_types, quantize_gguf,
};
pub use quantize::{can_quantize, quantize};
