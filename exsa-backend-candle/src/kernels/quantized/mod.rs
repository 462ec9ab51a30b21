//! Products of quantized weights, exact on the quantized operands.
//!
//! Weights are packed once, when a model is loaded, into tiles of 16 rows ([`layout`]); activations are
//! quantized to bytes once per row ([`activations`]); a [`team`](super::memory::team) of threads shares out
//! the tiles. Every output is computed by the same operations in the same order whatever the number of rows
//! and threads, so a row's result does not depend on what else is in the batch.

pub mod activations;
mod args;
pub mod dequantize;
mod isa;
mod lanes;
mod layout;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed_matrix;
#[cfg(target_arch = "x86_64")]
mod quantize512;
pub mod roofline;
mod scalar;
mod scratch;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use isa::Isa;
pub use layout::PackedType;
pub use matmul::{Product, multiply_all, multiply_groups};
pub use packed_matrix::PackedMatrix;
#[cfg(not(target_arch = "x86_64"))]
pub use scratch::scratch_bytes;
#[cfg(target_arch = "x86_64")]
pub use x86::amx::scratch_bytes;
