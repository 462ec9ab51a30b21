//! StarCoder2.

use super::Activation;
use super::{Architecture, MlpKind, NormKind, PLAIN};

/// StarCoder2 (arXiv:2402.19173): layer normalization, biases throughout, and an MLP without a gate.
pub(super) static STARCODER2: Architecture = Architecture {
    name: "starcoder2",
    norm: NormKind::Layer { bias: true },
    mlp: MlpKind::Ungated,
    activation: Activation::GeluTanh,
    ..PLAIN
};
