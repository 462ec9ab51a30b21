//! Results of forward passes.

use crate::batch::Logits;
use crate::token::TokenId;

/// Result of a forward pass, lent by the session until its next call.
///
/// Rows of logits are on the host or on the device. Further outputs, such as hidden states, can be added
/// without changing backends that do not have them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Output<'a> {
    rows: usize,
    logits: Option<Logits<'a>>,
}

impl<'a> Output<'a> {
    /// Rows of logits on the host, in the order of the batch.
    #[must_use]
    pub fn host(logits: Logits<'a>) -> Self {
        Self { rows: logits.rows(), logits: Some(logits) }
    }

    /// `rows` rows that stay on the device, where [`Session::sample`](super::Session::sample) reads them.
    #[must_use]
    pub fn device(rows: usize) -> Self {
        Self { rows, logits: None }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows on the host; `None` if they stay on the device.
    #[must_use]
    pub fn logits(&self) -> Option<Logits<'a>> {
        self.logits
    }

    /// Row `i` of `n_vocab` logits; `None` past the last row, or if the rows stay on the device.
    #[must_use]
    pub fn row(&self, i: usize) -> Option<&'a [f32]> {
        self.logits?.row(i)
    }
}

impl<'a> From<Logits<'a>> for Output<'a> {
    fn from(logits: Logits<'a>) -> Self {
        Self::host(logits)
    }
}

/// Parameters for sampling one row of the last pass on the
/// device: [`Session::sample`](super::Session::sample).
///
/// The chain is that of [`SamplingParams`](crate::SamplingParams) without penalties and
/// bias: top-k, top-p, min-p, temperature, then the Gumbel-max draw for (seed, position).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RowSampling {
    /// Row of the last pass, counted from 0.
    pub row: usize,
    /// Temperature; 0 is greedy.
    pub temperature: f32,
    /// Number of best tokens to keep; `None` keeps all.
    pub top_k: Option<u32>,
    /// Probability mass to keep, `0..=1`.
    pub top_p: f32,
    /// Minimum probability relative to the best token, `0..=1`.
    pub min_p: f32,
    /// Seed of the draw.
    pub seed: u64,
    /// Position of the new token in its sequence.
    pub position: u64,
    /// Whether to compute the token's log-probability.
    pub logprob: bool,
}

impl RowSampling {
    /// Greedy sampling of row `row`.
    #[must_use]
    pub fn greedy(row: usize) -> Self {
        Self {
            row,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            position: 0,
            logprob: false,
        }
    }
}

/// A token sampled on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SampledRow {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of its probability under the unmodified row, if requested.
    pub logprob: Option<f32>,
}

impl SampledRow {
    /// `token`, with its log-probability if requested.
    #[must_use]
    pub fn new(token: TokenId, logprob: Option<f32>) -> Self {
        Self { token, logprob }
    }
}
