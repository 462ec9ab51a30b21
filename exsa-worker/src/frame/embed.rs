//! Embeddings, scores and their errors.

use super::FrameError;
use super::bounded::Bounded;
use super::event::size;
use exsa_core::embed::{EmbedError, EmbedOutput, RerankOutput};
use exsa_core::{ErrorReport, RequestError, Usage};
use serde::{Deserialize, Serialize};

/// Error of an embedding or reranking request, or of one of its texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WireEmbedError {
    /// An [`ErrorReport`] as JSON.
    Failed(String),
    /// [`EmbedError::Deadline`].
    Deadline,
    /// [`EmbedError::Cancelled`].
    Cancelled,
    /// [`EmbedError::Dimensions`].
    Dimensions {
        /// Requested dimensions.
        asked: u64,
        /// Dimensions of the model's vectors.
        width: u64,
    },
}

/// Maximum texts of a request.
pub const TEXTS_MAX: usize = 1 << 18;
/// Maximum values of a vector.
const WIDTH_MAX: usize = 1 << 16;

/// A result per text, and the usage as JSON.
type Results<T> = (Bounded<Result<T, String>, TEXTS_MAX>, String);
/// Result of an embedding request.
pub type WireEmbedOutput = Result<Results<Bounded<f32, WIDTH_MAX>>, WireEmbedError>;
/// Result of a reranking request.
pub type WireScores = Result<Results<f32>, WireEmbedError>;

impl From<EmbedError> for WireEmbedError {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Deadline => Self::Deadline,
            EmbedError::Cancelled => Self::Cancelled,
            EmbedError::Dimensions { asked, width } => {
                Self::Dimensions { asked: asked as u64, width: width as u64 }
            }
            EmbedError::Failed(error) => Self::Failed(report(&error)),
            other => Self::Failed(report(&RequestError::Generator(other.to_string()))),
        }
    }
}

impl TryFrom<WireEmbedError> for EmbedError {
    type Error = FrameError;

    fn try_from(error: WireEmbedError) -> Result<Self, FrameError> {
        Ok(match error {
            WireEmbedError::Deadline => Self::Deadline,
            WireEmbedError::Cancelled => Self::Cancelled,
            WireEmbedError::Dimensions { asked, width } => {
                Self::Dimensions { asked: size(asked), width: size(width) }
            }
            WireEmbedError::Failed(json) => Self::Failed(error_of(&json)?),
        })
    }
}

/// Serializes an error as JSON.
pub(crate) fn report(error: &RequestError) -> String {
    serde_json::to_string(&ErrorReport::from(error)).unwrap_or_default()
}

/// Parses an error from JSON.
pub(crate) fn error_of(json: &str) -> Result<RequestError, FrameError> {
    let report: ErrorReport = serde_json::from_str(json)
        .map_err(|problem| FrameError::Content(format!("an error's report: {problem}")))?;
    Ok(match report.kind.as_str() {
        // The worker was about to exit when the request arrived.
        "shutting_down" => RequestError::Unavailable(report.message),
        _ => report.into(),
    })
}

fn usage(json: &str) -> Result<Usage, FrameError> {
    serde_json::from_str(json).map_err(|problem| FrameError::Content(format!("a usage: {problem}")))
}

fn check_len(found: usize, texts: usize) -> Result<(), FrameError> {
    if found == texts {
        return Ok(());
    }
    Err(FrameError::Content(format!("{found} results, but the request has {texts} texts")))
}

/// Converts embeddings to a message.
pub(crate) fn embeddings(output: Result<EmbedOutput, EmbedError>) -> WireEmbedOutput {
    let output = output?;
    let results = output.embeddings.into_iter();
    let results = results.map(|result| result.map(Bounded).map_err(|error| report(&error)));
    Ok((Bounded(results.collect()), serde_json::to_string(&output.usage).unwrap_or_default()))
}

/// Converts scores to a message.
pub(crate) fn scores(output: Result<RerankOutput, EmbedError>) -> WireScores {
    let output = output?;
    let results = output.scores.into_iter().map(|scored| scored.score.map_err(|error| report(&error)));
    Ok((Bounded(results.collect()), serde_json::to_string(&output.usage).unwrap_or_default()))
}

/// Converts a message to the output of a request with `texts` texts.
pub(crate) fn embed_output(
    wire: WireEmbedOutput,
    texts: usize,
) -> Result<Result<EmbedOutput, EmbedError>, FrameError> {
    let (results, used) = match wire {
        Ok(output) => output,
        Err(error) => return Ok(Err(error.try_into()?)),
    };
    let embeddings = results_of(results, texts)?.into_iter().map(|result| result.map(|vector| vector.0));
    Ok(Ok(EmbedOutput::new(embeddings.collect(), usage(&used)?)))
}

/// Returns one result per text, with its error parsed.
fn results_of<T>(
    results: Bounded<Result<T, String>, TEXTS_MAX>,
    texts: usize,
) -> Result<Vec<Result<T, RequestError>>, FrameError> {
    check_len(results.0.len(), texts)?;
    let read = |result: Result<T, String>| match result {
        Ok(value) => Ok(Ok(value)),
        Err(json) => error_of(&json).map(Err),
    };
    results.0.into_iter().map(read).collect()
}

/// Converts a message to the output of a request with `texts` documents.
pub(crate) fn rerank_output(
    wire: WireScores,
    texts: usize,
) -> Result<Result<RerankOutput, EmbedError>, FrameError> {
    let (results, used) = match wire {
        Ok(output) => output,
        Err(error) => return Ok(Err(error.try_into()?)),
    };
    Ok(Ok(RerankOutput::new(results_of(results, texts)?, usage(&used)?)))
}
