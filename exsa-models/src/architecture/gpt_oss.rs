//! gpt-oss.

use super::mixture::MIXTURE;
use super::{Activation, Architecture, ExpertScores, Mixture, Normalize, PLAIN, Windows};

/// gpt-oss (OpenAI, arXiv:2508.10925): every second layer has a window, attention has a sink for each head,
/// and the experts have biases and a clamped gate.
pub(super) static GPT_OSS: Architecture = Architecture {
    name: "gpt-oss",
    mlp_norm: "post_attention_norm",
    activation: Activation::ClampedSwiglu,
    attention_sinks: true,
    windows: Windows::LocalGlobal { period: 2, default: None },
    mixture: Some(&Mixture { scores: ExpertScores::SoftmaxOfChosen, normalize: Normalize::Never, ..MIXTURE }),
    ..PLAIN
};
