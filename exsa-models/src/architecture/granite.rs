//! Granite 3 and later.

use super::mixture::MIXTURE;
use super::{Architecture, EmbeddingScale, ExpertWidth, LogitScale, Mixture, PLAIN, RopeLayers, SharedWidth};
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

/// Granite 3 and 4 with experts and, in some, one for all tokens.
pub(super) static GRANITEMOE: Architecture = Architecture {
    name: "granitemoe",
    rope_pairs: RopePairs::Interleaved,
    embedding_scale: EmbeddingScale::Metadata,
    layer_scales: true,
    logit_scale: LogitScale::Divide,
    mixture: Some(&Mixture {
        required: false,
        width: ExpertWidth::FeedForward,
        shared: SharedWidth::Metadata,
        ..MIXTURE
    }),
    ..PLAIN
};
