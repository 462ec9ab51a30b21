//! Kernels on f32: attention over the KV cache, products, products of float weights, and what happens to the
//! rows of a batch between products.

pub mod attention;
mod attention_inputs;
pub mod convolution;
pub mod delta_rule;
pub mod elementwise;
pub mod kv_layout;
pub mod matmul;
pub mod packed;
pub mod router;
pub mod rows;
mod skinny_gemm;
mod softmax;
mod tiles;

pub(crate) use attention_inputs::{AttentionSpan, Inputs};
pub(crate) use elementwise::{gelu, silu};
