//! Outputs and errors of embedding and rerank requests.

use crate::finish::{RequestError, Usage};

/// The vectors of an [`EmbedRequest`](super::EmbedRequest).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EmbedOutput {
    /// One result per text, in the order of the request: the vector, or the error of this text.
    pub embeddings: Vec<Result<Vec<f32>, RequestError>>,
    /// Token counts and times.
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
    /// Token counts and times.
    pub usage: Usage,
}

/// The score of a document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DocumentScore {
    /// Index of the document in the request.
    pub index: usize,
    /// The model's raw score, higher for a better match, or the error of this document.
    pub score: Result<f32, RequestError>,
}

impl RerankOutput {
    /// Scores in the order of the request.
    pub fn new(scores: impl IntoIterator<Item = Result<f32, RequestError>>, usage: Usage) -> Self {
        let scores = scores.into_iter().enumerate();
        Self { scores: scores.map(|(index, score)| DocumentScore { index, score }).collect(), usage }
    }

    /// Indices and scores of the documents that did not fail, best first; ties are in the order of the
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

/// Reason why an embedding or rerank request has no output.
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
    /// More dimensions were requested than the model's vectors have.
    #[error("{asked} dimensions were requested, but the model's vectors have {width}")]
    Dimensions {
        /// Requested dimensions.
        asked: usize,
        /// Dimensions of the model's vectors.
        width: usize,
    },
}
