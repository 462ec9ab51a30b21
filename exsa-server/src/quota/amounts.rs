//! Amounts of the kinds of use that quotas limit.

use serde::{Deserialize, Serialize};
use std::ops::{Index, IndexMut};

/// A kind of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Requests.
    Requests,
    /// Tokens of prompts.
    PromptTokens,
    /// Generated tokens.
    OutputTokens,
}

impl Kind {
    /// All kinds.
    pub(super) const ALL: [Self; 3] = [Self::Requests, Self::PromptTokens, Self::OutputTokens];

    /// Name in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::PromptTokens => "prompt tokens",
            Self::OutputTokens => "output tokens",
        }
    }
}

/// An amount of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Requests.
    pub requests: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
}

impl Amounts {
    /// One request with its tokens.
    pub fn request(prompt_tokens: u64, output_tokens: u64) -> Self {
        Self { requests: 1, prompt_tokens, output_tokens }
    }

    /// The amount that `f` gives for each kind.
    pub(super) fn of(f: impl Fn(Kind) -> u64) -> Self {
        Self {
            requests: f(Kind::Requests),
            prompt_tokens: f(Kind::PromptTokens),
            output_tokens: f(Kind::OutputTokens),
        }
    }

    /// The result of `f` for each kind of two amounts.
    pub(super) fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self::of(|kind| f(self[kind], other[kind]))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// The difference, 0 where `other` is larger.
    pub(super) fn minus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    pub(super) fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    pub(super) fn min(self, other: Self) -> Self {
        self.zip(other, u64::min)
    }

    pub(super) fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl Index<Kind> for Amounts {
    type Output = u64;

    fn index(&self, kind: Kind) -> &u64 {
        match kind {
            Kind::Requests => &self.requests,
            Kind::PromptTokens => &self.prompt_tokens,
            Kind::OutputTokens => &self.output_tokens,
        }
    }
}

impl IndexMut<Kind> for Amounts {
    fn index_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Requests => &mut self.requests,
            Kind::PromptTokens => &mut self.prompt_tokens,
            Kind::OutputTokens => &mut self.output_tokens,
        }
    }
}
