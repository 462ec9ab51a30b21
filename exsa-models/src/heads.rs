//! Heads of an attention layer.

use std::ops::Range;

/// Heads of queries, of keys and values, and what their scores go through.
#[derive(Clone, Debug)]
pub struct Heads {
    /// Heads of queries, a multiple of `n_head_kv`.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scores go through `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Tokens that each token sees, itself included.
    pub window: Option<usize>,
}

impl Heads {
    /// Positions that the token at `position` sees.
    #[must_use]
    pub fn seen(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        end.saturating_sub(self.window.unwrap_or(end))..end
    }
}
