//! Qwen 1.5 to 3, dense and with experts.

use super::mixture::MIXTURE;
use super::{Architecture, ExpertWidth, Mixers, Mixture, Normalize, PLAIN, QkNorm, SharedWidth};

/// Qwen2 and Qwen2.5 (arXiv:2407.10671): biases on queries, keys and values, which any projection may have.
pub(super) static QWEN2: Architecture = Architecture { name: "qwen2", ..PLAIN };

/// Qwen3 (arXiv:2505.09388): no biases, but norms of queries and keys.
pub(super) static QWEN3: Architecture = Architecture { name: "qwen3", qk_norm: QkNorm::Heads, ..PLAIN };

/// Qwen 3.5 (Alibaba, 2026), the dense models: gated delta nets in most layers, and attention whose output is
/// gated in every fourth or in those that the metadata list.
pub(super) static QWEN35: Architecture = Architecture {
    name: "qwen35",
    mixers: Mixers::DeltaNetOrAttention,
    attention_gate: true,
    rope_sections: true,
    mlp_norm: "post_attention_norm",
    leaves_out_nextn: true,
    ..QWEN3
};

/// Qwen2-MoE (Qwen1.5-MoE, arXiv:2407.10671): experts whose weights keep their size, and one for all tokens
/// behind a gate.
pub(super) static QWEN2MOE: Architecture = Architecture {
    name: "qwen2moe",
    mixture: Some(&Mixture {
        normalize: Normalize::Never,
        width: ExpertWidth::MetadataOrShare,
        shared: SharedWidth::MetadataOrFeedForward,
        shared_gate: true,
        ..MIXTURE
    }),
    ..PLAIN
};

/// Qwen3-MoE (arXiv:2505.09388).
pub(super) static QWEN3MOE: Architecture = Architecture {
    name: "qwen3moe",
    qk_norm: QkNorm::Heads,
    mixture: Some(&Mixture { width: ExpertWidth::MetadataOrShare, ..MIXTURE }),
    ..PLAIN
};

/// Qwen 3.5, the mixtures of experts, with one for all tokens behind a gate.
pub(super) static QWEN35MOE: Architecture = Architecture {
    name: "qwen35moe",
    mixture: Some(&Mixture {
        width: ExpertWidth::MetadataOrShare,
        shared: SharedWidth::MetadataOrFeedForward,
        shared_gate: true,
        ..MIXTURE
    }),
    ..QWEN35
};
