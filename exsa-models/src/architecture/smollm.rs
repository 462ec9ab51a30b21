//! SmolLM3. SmolLM and SmolLM2 are of the llama architecture.

use super::{Architecture, PLAIN, RopeLayers};
use crate::rope::RopePairs;

/// SmolLM3 (Hugging Face, 2025): every fourth layer has no RoPE (NoPE, arXiv:2501.18795).
pub(super) static SMOLLM3: Architecture = Architecture {
    name: "smollm3",
    rope_pairs: RopePairs::Interleaved,
    rope_layers: RopeLayers::AllButEvery(4),
    ..PLAIN
};
