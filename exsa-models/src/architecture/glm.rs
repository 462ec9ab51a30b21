//! GLM-4-0414 and GLM-4.5.

use super::mixture::MIXTURE;
use super::{
    Architecture, ExpertScores, ExpertWidth, Mixture, MlpKind, Normalize, PLAIN, QkNorm, SelectionBias,
    SharedWidth,
};
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

/// GLM-4.5 (arXiv:2508.06471): dense layers first; experts that are chosen by sigmoids with a bias, and one
/// for all tokens.
pub(super) static GLM4MOE: Architecture = Architecture {
    name: "glm4moe",
    qk_norm: QkNorm::HeadsIfPresent,
    mlp_norm: "post_attention_norm",
    leaves_out_nextn: true,
    mixture: Some(&Mixture {
        scores: ExpertScores::Sigmoid,
        scores_in_metadata: true,
        normalize: Normalize::Metadata,
        scale: true,
        width: ExpertWidth::MetadataOrShare,
        shared: SharedWidth::Count,
        selection_bias: SelectionBias::Required,
        leading_dense: true,
        ..MIXTURE
    }),
    ..PLAIN
};
