//! Kinds of proposers.

/// Kind of a [`Proposer`](super::Proposer). Acceptance is estimated and counted per kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DraftSource {
    /// [`PromptLookup`](super::PromptLookup).
    PromptLookup,
    /// [`SuffixIndex`](super::SuffixIndex).
    SuffixIndex,
    /// A smaller model with the same vocabulary.
    DraftModel,
    /// A proposer supplied by the host.
    Custom,
}

impl DraftSource {
    /// Number of kinds.
    pub const COUNT: usize = 4;

    /// All kinds, by [`index`](Self::index).
    pub const ALL: [Self; Self::COUNT] =
        [Self::PromptLookup, Self::SuffixIndex, Self::DraftModel, Self::Custom];

    /// Index in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::PromptLookup => "prompt_lookup",
            Self::SuffixIndex => "suffix_index",
            Self::DraftModel => "draft_model",
            Self::Custom => "custom",
        }
    }
}
