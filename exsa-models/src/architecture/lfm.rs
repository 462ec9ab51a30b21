//! Liquid AI's LFM2.

use super::{Architecture, Mixers, PLAIN, QkNorm};

/// LFM2 (arXiv:2511.23404): gated short convolutions in most layers, attention in the others.
pub(super) static LFM2: Architecture = Architecture {
    name: "lfm2",
    mixers: Mixers::ShortConvOrAttention,
    qk_norm: QkNorm::Heads,
    output_norm: "token_embd_norm",
    ..PLAIN
};
