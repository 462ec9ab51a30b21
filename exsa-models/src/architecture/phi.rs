//! Phi 3, 3.5 and 4.

use super::{Architecture, MlpKind, PLAIN, Windows};

/// Phi-3 (arXiv:2404.14219). Early files of the models with a context of 4,096 tokens lack their window,
/// which their `config.json` and llama.cpp have.
pub(super) static PHI3: Architecture = Architecture {
    name: "phi3",
    fused_qkv: true,
    mlp: MlpKind::FusedGate,
    windows: Windows::All,
    windows_by_size: &[[32, 4096, 2047], [40, 4096, 2047]],
    ..PLAIN
};
