//! ERNIE 4.5, the mixtures of experts.

use super::mixture::MIXTURE;
use super::{Architecture, Mixture, PLAIN, SelectionBias, SharedWidth};
use crate::rope::RopePairs;

/// ERNIE 4.5 (Baidu, 2025): dense layers first; experts that a bias helps to choose, and one for all tokens.
pub(super) static ERNIE4_5_MOE: Architecture = Architecture {
    name: "ernie4_5-moe",
    rope_pairs: RopePairs::Interleaved,
    mixture: Some(&Mixture {
        shared: SharedWidth::Metadata,
        selection_bias: SelectionBias::IfPresent,
        leading_dense: true,
        ..MIXTURE
    }),
    ..PLAIN
};
