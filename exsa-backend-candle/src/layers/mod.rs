//! The layers that all architectures are made of, each once.
//!
//! Activations are f32, rows first. Where candle has no fused operation, a layer computes in one pass over host memory on
//! the CPU and in candle's own operations elsewhere.

pub(crate) mod attention;
pub(crate) mod embedding;
pub(crate) mod host;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod paged;
mod paged_host;
pub(crate) mod rope;
