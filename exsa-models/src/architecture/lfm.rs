//! Liquid AI's LFM2.

use super::mixture::MIXTURE;
use super::{Architecture, ExpertScores, Mixers, Mixture, PLAIN, QkNorm, SelectionBias};

/// LFM2 (arXiv:2511.23404): gated short convolutions in most layers, attention in the others.
pub(super) static LFM2: Architecture = Architecture {
    name: "lfm2",
    mixers: Mixers::ShortConvOrAttention,
    qk_norm: QkNorm::Heads,
    output_norm: "token_embd_norm",
    ..PLAIN
};

/// LFM2-MoE: dense layers first, then experts that are chosen with a bias on their scores.
pub(super) static LFM2MOE: Architecture = Architecture {
    name: "lfm2moe",
    mixture: Some(&Mixture {
        scores: ExpertScores::Sigmoid,
        scores_in_metadata: true,
        selection_bias: SelectionBias::Required,
        leading_dense: true,
        ..MIXTURE
    }),
    ..LFM2
};
