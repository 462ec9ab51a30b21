//! Protocol between host and worker: length-prefixed postcard frames.
//!
//! A frame is the length of its body as u32, little-endian, then the body: one [`ToWorker`] or one
//! [`FromWorker`]. One frame carries one group of events, all events of one token, so a stream that ends
//! between two frames can be continued without a gap or a repetition.

mod bounded;
mod check;
mod embed;
mod event;
mod message;
mod reader;

pub use bounded::Bounded;
pub use check::StreamRules;
pub use embed::{TEXTS_MAX, WireEmbedError, WireEmbedOutput, WireScores};
pub(crate) use embed::{embed_output, embeddings, error_of, rerank_output, scores};
pub use event::{EVENTS_MAX, WireEvent};
pub use message::{Beat, FromWorker, Hello, ToWorker};
pub use reader::FrameReader;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;

/// Maximum length of a frame body in bytes, in both directions.
pub const FRAME_MAX: usize = 64 << 20;
/// Length of the prefix.
const PREFIX: usize = size_of::<u32>();

/// Error in a frame, or in the byte stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The connection failed.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The body is longer than allowed.
    #[error("a frame of {len} bytes, but at most {max} are allowed")]
    TooLong {
        /// Length of the body.
        len: usize,
        /// Maximum.
        max: usize,
    },
    /// The connection ended within a frame.
    #[error("the connection ended within a frame")]
    Truncated,
    /// The body is not a message.
    #[error("a frame of {len} bytes is no message: {problem}")]
    Malformed {
        /// Length of the body.
        len: usize,
        /// The decoder's error.
        problem: String,
    },
    /// A message is well-formed, but its content is invalid.
    #[error("{0}")]
    Content(String),
}

impl FrameError {
    /// Returns whether the peer broke the protocol, rather than just ended.
    pub fn is_violation(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::Truncated)
    }
}

/// Appends a frame to `out`.
///
/// # Errors
///
/// [`FrameError::TooLong`]; `out` is then unchanged.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let encoded = postcard::to_io(message, &mut *out).map(drop);
    let len = out.len() - start - PREFIX;
    let result = match encoded {
        Err(problem) => Err(FrameError::Malformed { len, problem: problem.to_string() }),
        Ok(()) if len > FRAME_MAX => Err(FrameError::TooLong { len, max: FRAME_MAX }),
        Ok(()) => Ok(()),
    };
    match (&result, out.get_mut(start..start + PREFIX)) {
        (Ok(()), Some(prefix)) => prefix.copy_from_slice(&(len as u32).to_le_bytes()),
        _ => out.truncate(start),
    }
    result
}

/// Decodes the body of a frame.
///
/// # Errors
///
/// [`FrameError::Malformed`] if the body is not a message, or has trailing bytes.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let malformed = |problem: String| FrameError::Malformed { len: body.len(), problem };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(malformed(format!("{} bytes follow it", rest.len()))),
        Err(problem) => Err(malformed(problem.to_string())),
    }
}
