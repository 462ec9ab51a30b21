//! Llama 1 to 3, and what goes by their architecture: Mistral, SmolLM2, TinyLlama.

use super::{Architecture, PLAIN, Windows};
use crate::rope::RopePairs;

/// Touvron et al., arXiv:2302.13971. The files hold queries and keys permuted so that RoPE's pairs are
/// adjacent. Mistral 7B (arXiv:2310.06825) is the same with a sliding window.
pub(super) static LLAMA: Architecture =
    Architecture { name: "llama", rope_pairs: RopePairs::Interleaved, windows: Windows::All, ..PLAIN };
