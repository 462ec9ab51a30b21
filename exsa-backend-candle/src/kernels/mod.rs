//! Kernels on the CPU, on slices of host memory.
//!
//! [`memory`] and [`simd`] are what the others are made of; [`float`] works on f32 and on the KV cache,
//! [`quantized`] on the weights of a model.

pub mod float;
pub mod memory;
pub mod quantized;
pub mod simd;

/// Version of the bytes that [`quantized`] and [`float`] pack weights to, which are the same for all
/// instruction sets. It goes up with every change to them, since packed weights are kept in files.
pub const LAYOUT_VERSION: u32 = 1;
