//! GLM-4-0414.

use super::{Architecture, MlpKind, PLAIN};
use crate::rope::RopePairs;

/// GLM-4 (arXiv:2406.12793) in the form of 0414: norms before and after attention and MLP, RoPE on part of a
/// head, gate and up in one matrix.
pub(super) static GLM4: Architecture = Architecture {
    name: "glm4",
    rope_pairs: RopePairs::Interleaved,
    post_norms: true,
    mlp: MlpKind::FusedGate,
    ..PLAIN
};
