//! Vectors, scores, and errors.

use crate::finish::{RequestError, Usage};

/// The vectors of an [`EmbedRequest`](super::EmbedRequest).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EmbedOutput {
    /// One vector per text, in the order of the request, or the error that this text failed with.
    pub embeddings: Vec<Result<Vec<f32>, RequestError>>,
    /// Tokens and times.
    pub usage: Usage,
}

impl EmbedOutput {
    /// Vectors in the order of the request.
    pub fn new(embeddings: Vec<Result<Vec<f32>, RequestError>>, usage: Usage) -> Self {
        Self { embeddings, usage }
    }

    /// All vectors, or the first error.
    ///
    /// # Errors
    ///
    /// The error of the first text that failed.
    pub fn into_vectors(self) -> Result<Vec<Vec<f32>>, RequestError> {
        self.embeddings.into_iter().collect()
    }
}

/// The scores of a [`RerankRequest`](super::RerankRequest).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RerankOutput {
    /// One score per document, in the order of the request.
    pub scores: Vec<DocumentScore>,
    /// Tokens and times.
    pub usage: Usage,
}

/// The score of a document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DocumentScore {
    /// Index of the document in the request.
    pub index: usize,
    /// The score as the model gives it, the higher the better the document fits, or the error that it failed
    /// with.
    pub score: Result<f32, RequestError>,
}

impl RerankOutput {
    /// Scores in the order of the request.
    pub fn new(scores: impl IntoIterator<Item = Result<f32, RequestError>>, usage: Usage) -> Self {
        let scores = scores.into_iter().enumerate();
        Self { scores: scores.map(|(index, score)| DocumentScore { index, score }).collect(), usage }
    }

    /// Indices and scores of the documents that did not fail, the best first; equal ones in the order of the
    /// request.
    pub fn ranking(&self) -> Vec<(usize, f32)> {
        let mut ranking: Vec<_> = self
            .scores
            .iter()
            .filter_map(|scored| Some((scored.index, *scored.score.as_ref().ok()?)))
            .collect();
        ranking.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        ranking
    }
}

/// Why a request for vectors or scores gave no output.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The request failed.
    #[error(transparent)]
    Failed(#[from] RequestError),
    /// The request's `timeout` passed.
    #[error("the deadline has passed")]
    Deadline,
    /// The engine was shut down.
    #[error("the request was cancelled")]
    Cancelled,
    /// More dimensions were asked for than the model's vectors have.
    #[error("{asked} dimensions were asked for, but the model's vectors have {width}")]
    Dimensions {
        /// Dimensions asked for.
        asked: usize,
        /// Dimensions of the model's vectors.
        width: usize,
    },
}
