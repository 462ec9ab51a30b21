//! Phi 3, 3.5 and 4.

use super::{Architecture, MlpKind, PLAIN, Windows};

/// Phi-3 (arXiv:2404.14219).
pub(super) static PHI3: Architecture =
    Architecture { name: "phi3", fused_qkv: true, mlp: MlpKind::FusedGate, windows: Windows::All, ..PLAIN };
