//! Identifiers: tokens, sequences, requests.

/// Index of a token in a model's vocabulary, `0..n_vocab`.
pub type TokenId = u32;

/// Names one sequence inside a [`Session`](crate::backend::Session).
///
/// Core hands the ids out, densely from 0 and always below
/// [`Capabilities::sequences_max`](crate::backend::Capabilities::sequences_max); an id is used again after
/// its sequence was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u32);

impl SeqId {
    /// The id as an index into a table of `sequences_max` entries.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for SeqId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sequence {}", self.0)
    }
}

/// Names a request within one engine; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names an adapter of a [`Model`](crate::backend::Model): a LoRA that spans may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub u32);
