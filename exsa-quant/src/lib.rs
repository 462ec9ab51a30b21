//! Quantization of GGUF tensors.
//!
//! [`dequantize`] turns the blocks of every ggml type that GGUF files hold into f32. The layouts and codebooks are
//! those of ggml's `ggml-common.h` and `ggml-quants.c`; [`codebook`] exports the tables, so that kernels compute
//! with the same numbers.
//!
//! ```
//! use exsa_core::gguf::GgmlType;
//!
//! // One block of Q8_0: scale 0.5 as f16, then 32 signed bytes.
//! let mut block = vec![0x00, 0x38];
//! block.extend(0..32u8);
//! let mut values = [0.0; 32];
//! exsa_quant::dequantize(GgmlType::Q8_0, &block, &mut values)?;
//! assert_eq!(values[3], 1.5);
//! # Ok::<(), exsa_quant::QuantError>(())
//! ```
#![forbid(unsafe_code)]

pub mod codebook;
mod dequantize;
mod error;
mod format;

pub use dequantize::dequantize;
pub use error::QuantError;
