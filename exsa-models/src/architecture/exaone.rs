//! EXAONE 4.

use super::{Architecture, Inputs, PLAIN, QkNorm, RopeLayers, Windows};

/// EXAONE 4 (arXiv:2507.11407): norms after attention and MLP and none before. The large model has windows on
/// three of four layers, and RoPE on these alone.
pub(super) static EXAONE4: Architecture = Architecture {
    name: "exaone4",
    inputs: Inputs::Plain,
    rope_layers: RopeLayers::SlidingWindowOrAll,
    qk_norm: QkNorm::Heads,
    post_norms: true,
    windows: Windows::LocalGlobal { period: 4, default: None },
    ..PLAIN
};
