//! Identifiers: tokens, sequences, requests.

/// Index of a token in a model's vocabulary, `0..n_vocab`.
pub type TokenId = u32;

/// Identifies a sequence of a [`Session`](crate::backend::Session).
///
/// Core assigns the ids, densely from 0 and always below
/// [`Capabilities::sequences_max`](crate::backend::Capabilities::sequences_max); an id is reused after its
/// sequence was released.
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

/// Identifies a request within one engine; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Identifies a LoRA adapter of a [`Model`](crate::backend::Model), which spans can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub u32);
