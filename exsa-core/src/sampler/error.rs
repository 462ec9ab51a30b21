//! The error of invalid sampling parameters.

use super::order::TransformKind;
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
    /// A step that [`SamplingParams::order`](super::SamplingParams::order) lists twice.
    #[error("samplers: {kind:?} is listed more than once")]
    OrderTwice {
        /// The step.
        kind: TransformKind,
    },
    /// Two parameters that exclude each other.
    #[error("{} and {} exclude each other, but both are set", parameters[0], parameters[1])]
    Conflict {
        /// Names of the fields of [`SamplingParams`](super::SamplingParams).
        parameters: [&'static str; 2],
    },
    /// Too many sequence breakers.
    #[error("{count} dry_sequence_breakers, but at most 64 are allowed")]
    BreakerCount {
        /// Their number.
        count: usize,
    },
    /// A sequence breaker that is too long.
    #[error("dry_sequence_breakers: text {index} has {bytes} bytes, but at most 64 are allowed")]
    BreakerLength {
        /// Its index.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// A parameter needs the tokenizer, but the context has none.
    #[error("{parameter} needs a tokenizer, but the SamplerContext has none")]
    NoTokenizer {
        /// Name of the field of [`SamplingParams`](super::SamplingParams).
        parameter: &'static str,
    },
    /// A [`SamplerState`](super::SamplerState) that belongs to other sampling parameters.
    #[error(
        "sampler_state: it belongs to other sampling parameters: it has values of {found} transforms, \
         not {expected}"
    )]
    State {
        /// Transforms in the state.
        found: usize,
        /// Transforms of the sampler that have observations.
        expected: usize,
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
