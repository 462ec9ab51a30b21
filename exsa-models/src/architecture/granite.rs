//! Granite 3 and later, the dense models.

use super::{Architecture, EmbeddingScale, LogitScale, PLAIN, RopeLayers};
use crate::rope::RopePairs;

/// Granite (IBM, 2024): the llama architecture with factors on embeddings, attention scores, residuals and
/// logits. A file without RoPE says so by `rope.scaling.finetuned`.
pub(super) static GRANITE: Architecture = Architecture {
    name: "granite",
    rope_pairs: RopePairs::Interleaved,
    rope_layers: RopeLayers::Finetuned,
    embedding_scale: EmbeddingScale::Metadata,
    layer_scales: true,
    logit_scale: LogitScale::Divide,
    ..PLAIN
};
