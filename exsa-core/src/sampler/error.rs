//! The error of invalid sampling parameters.

use crate::token::TokenId;

/// An invalid sampling parameter.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A value is NaN or out of range.
    #[error("{parameter} is {value}, but must be {allowed}")]
    Range {
        /// Name of the field of [`SamplingParams`](super::SamplingParams).
        parameter: &'static str,
        /// Its value.
        value: f32,
        /// The allowed range.
        allowed: &'static str,
    },
    /// A logit bias for a token outside the vocabulary.
    #[error("logit_bias: token {token} is outside the vocabulary of {n_vocab}")]
    BiasToken {
        /// The token.
        token: TokenId,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// A second logit bias for the same token.
    #[error("logit_bias: token {token} is listed more than once")]
    BiasTwice {
        /// The token.
        token: TokenId,
    },
    /// The vocabulary is empty or has more tokens than ids.
    #[error("a vocabulary of {n_vocab} tokens cannot be sampled from; 1 to 4294967295 are supported")]
    Vocabulary {
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// A host's transform cannot be built.
    #[error("transform: {reason}")]
    Transform {
        /// The reason, from the host's [`TransformFactory`](super::TransformFactory).
        reason: String,
    },
}

impl SamplingError {
    /// The error of a [`TransformFactory`](super::TransformFactory) that cannot build its transform.
    pub fn transform(reason: impl Into<String>) -> Self {
        Self::Transform { reason: reason.into() }
    }
}
