//! OLMo 2 and 3.

use super::{Architecture, Inputs, PLAIN, QkNorm, SlidingWindowRope, Windows};

/// OLMo 2 (arXiv:2501.00656): norms after attention and MLP and none before, queries and keys normalized over
/// all heads. OLMo 3 is the same with windows on three of four layers, whose RoPE is not scaled.
pub(super) static OLMO2: Architecture = Architecture {
    name: "olmo2",
    inputs: Inputs::Plain,
    qk_norm: QkNorm::Whole,
    post_norms: true,
    windows: Windows::LocalGlobal { period: 4, default: None },
    rope_sliding_window: SlidingWindowRope::Unscaled,
    ..PLAIN
};
