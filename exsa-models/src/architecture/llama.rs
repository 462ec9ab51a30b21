//! Llama 1 to 3, and what goes by their architecture: Mistral, Mixtral, SmolLM2, TinyLlama.

use super::mixture::MIXTURE;
use super::{Architecture, ExpertWidth, Mixture, PLAIN, Windows};
use crate::rope::RopePairs;

/// Touvron et al., arXiv:2302.13971. The files hold queries and keys permuted so that RoPE's pairs are
/// adjacent. Mistral 7B (arXiv:2310.06825) is the same with a sliding window, Mixtral (arXiv:2401.04088) with
/// experts.
pub(super) static LLAMA: Architecture = Architecture {
    name: "llama",
    rope_pairs: RopePairs::Interleaved,
    windows: Windows::All,
    mixture: Some(&Mixture { required: false, width: ExpertWidth::FeedForward, ..MIXTURE }),
    ..PLAIN
};
