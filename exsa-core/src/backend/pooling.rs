//! Pooling of token embeddings.

/// Reduction of a text's token vectors from the last layer to one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Pooling {
    /// Mean of all tokens.
    Mean,
    /// The first token, as in BERT.
    First,
    /// The last token.
    Last,
    /// Output of the model's classification head: for a reranker, one score, higher for
    /// a better match (query and document in one text, in the model's training format).
    Rank,
}
