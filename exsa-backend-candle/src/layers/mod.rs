//! The layers that all architectures are made of, each once: their weights and parameters, and how they run
//! on candle's tensors.
//!
//! Activations are f32, rows first. On the CPU, [`executor`](crate::executor) runs the same layers on slices.

pub(crate) mod attention;
pub(crate) mod delta_net;
pub(crate) mod embedding;
pub(crate) mod experts;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod paged;
pub(crate) mod rope;
pub(crate) mod short_conv;
pub(crate) mod vector;
