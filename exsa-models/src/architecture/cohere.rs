//! Cohere's Command R and Command R7B.

use super::{Architecture, Inputs, LogitScale, NormKind, PLAIN, RopeLayers, Windows};
use crate::rope::RopePairs;

/// Command R: attention and MLP in parallel, behind one layer normalization without bias. Command R+, of 64
/// layers, normalizes queries and keys by weights that differ from head to head.
pub(super) static COMMAND_R: Architecture = Architecture {
    name: "command-r",
    norm: NormKind::Layer { bias: false },
    inputs: Inputs::Parallel,
    rope_pairs: RopePairs::Interleaved,
    logit_scale: LogitScale::Multiply,
    layers_unsupported: Some(64),
    ..PLAIN
};

/// Command R7B and Command A (arXiv:2504.00698): windows on three of four layers, and RoPE on these alone.
pub(super) static COHERE2: Architecture = Architecture {
    name: "cohere2",
    rope_layers: RopeLayers::SlidingWindow,
    windows: Windows::LocalGlobal { period: 4, default: None },
    layers_unsupported: None,
    ..COMMAND_R
};
