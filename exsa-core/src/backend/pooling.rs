//! Pooling of token embeddings.

/// How the vectors of a text's tokens, as the last layer leaves them, become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's, as in BERT.
    First,
    /// The last token's.
    Last,
    /// What the model's classification head makes of it: of a reranker, one number, the higher the better the text
    /// (query and document in one, as the model was trained) fits.
    Rank,
}
