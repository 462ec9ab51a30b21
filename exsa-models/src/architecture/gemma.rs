//! Gemma 2 and 3. The norms' weights in the files include the 1 that the papers add to them.

use super::Activation;
use super::{Architecture, EmbeddingScale, LogitSoftcap, PLAIN, QkNorm, SlidingWindowRope, Windows};

/// Gemma 2 (arXiv:2408.00118).
pub(super) static GEMMA2: Architecture = Architecture {
    name: "gemma2",
    post_norms: true,
    activation: Activation::GeluTanh,
    embedding_scale: EmbeddingScale::RootOfWidth,
    windows: Windows::LocalGlobal { period: 2, default: Some(4096) },
    attention_softcap: Some(50.0),
    logit_softcap: LogitSoftcap::Metadata(Some(30.0)),
    layers_with_wide_queries: Some(46),
    ..PLAIN
};

/// Gemma 3 (arXiv:2503.19786), the text part.
pub(super) static GEMMA3: Architecture = Architecture {
    name: "gemma3",
    qk_norm: QkNorm::Heads,
    post_norms: true,
    activation: Activation::GeluTanh,
    embedding_scale: EmbeddingScale::RootOfWidth,
    windows: Windows::LocalGlobal { period: 6, default: None },
    rope_sliding_window: SlidingWindowRope::Base(10_000.0),
    logit_softcap: LogitSoftcap::Metadata(None),
    layers_with_wide_queries: Some(62),
    ..PLAIN
};
