//! Errors, one type for each operation.

use crate::token::{SeqId, TokenId};
use std::path::PathBuf;

/// Error of inspecting or loading a model or an adapter, or of creating a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a valid GGUF.
    #[error(transparent)]
    Gguf(#[from] crate::gguf::GgufError),
    /// The tokenizer in the file cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The file is sound but the backend cannot run it.
    #[error("unsupported model: {what} (supported: {supported})")]
    Unsupported {
        /// Name of the unsupported architecture, quantization or tensor type.
        what: String,
        /// The supported values.
        supported: String,
    },
    /// The file holds no tensors: it is a vocabulary-only file.
    #[error("the file holds a vocabulary and no weights, so it is not a model")]
    NoWeights,
    /// The path is a folder.
    #[error("{} is a folder, not a file; give the path of a .gguf file{}", path.display(), listed(files))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Names of GGUF files in it, some of them if there are many.
        files: Vec<String>,
    },
    /// A folder of Hugging Face's form is damaged, or holds what is not supported.
    #[error("{}: {problem}", path.display())]
    ModelFolder {
        /// The folder.
        path: PathBuf,
        /// The file in it, the problem, and the values that are allowed.
        problem: String,
    },
    /// The file is a valid GGUF file, but not a model.
    #[error("the file holds {what}, not a model: {advice}")]
    NotAModel {
        /// Content of the file, according to its metadata.
        what: &'static str,
        /// How such a file is used.
        advice: &'static str,
    },
    /// A tensor is missing or has the wrong shape or type.
    #[error("tensor '{name}': {problem}")]
    Tensor {
        /// Name of the tensor in the file.
        name: String,
        /// The problem and the expected value.
        problem: String,
    },
    /// More memory is needed than is allowed or available.
    #[error("{what} needs {needed} bytes, but {available} are available")]
    Memory {
        /// Part that needs the memory: weights, KV cache.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// An option has a value that is invalid for this model.
    #[error("option {option}: {problem}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The problem and the values that are allowed.
        problem: String,
    },
    /// An adapter is damaged or does not belong to this model.
    #[error("adapter {name}: {problem}")]
    Adapter {
        /// Its file or folder.
        name: String,
        /// The problem, its place, and the values that are allowed.
        problem: String,
    },
    /// The progress callback asked to stop.
    #[error("loading was cancelled")]
    Cancelled,
    /// A backend-specific failure.
    #[error("backend: {0}")]
    Backend(String),
}

/// File names for a message.
fn listed(files: &[String]) -> String {
    if files.is_empty() { String::new() } else { format!(" in it, such as {}", files.join(", ")) }
}

/// Error of a forward pass.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// One sequence cannot continue; the other sequences can, without it in the batch.
    #[error("{seq}: {problem}")]
    Sequence {
        /// The sequence at fault.
        seq: SeqId,
        /// The problem.
        problem: String,
    },
    /// The batch holds more tokens than
    /// [`Capabilities::batch_tokens_max`](crate::backend::Capabilities::batch_tokens_max).
    #[error("batch of {tokens} tokens is over the limit of {limit}")]
    BatchTooLarge {
        /// Tokens in the batch.
        tokens: usize,
        /// Tokens allowed.
        limit: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("{seq}: token {token} is outside the vocabulary of {n_vocab}")]
    InvalidToken {
        /// The sequence that holds the token.
        seq: SeqId,
        /// The token.
        token: TokenId,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// A span does not start where its sequence ends.
    #[error("{seq}: span starts at position {position}, but the session holds {held} tokens")]
    Position {
        /// The sequence.
        seq: SeqId,
        /// Start position of the span.
        position: usize,
        /// Tokens held.
        held: usize,
    },
    /// The KV cache is full. Since core accounts for KV, this indicates a bug in core or in the session's
    /// capabilities.
    #[error("the KV cache is full: {needed} blocks needed, {free} free")]
    KvFull {
        /// Blocks needed, more than are free.
        needed: usize,
        /// Blocks free.
        free: usize,
    },
    /// The session cannot do this; its [`Capabilities`](crate::backend::Capabilities) say so.
    #[error("{0} is not supported by this session")]
    Unsupported(&'static str),
    /// The pass was interrupted through [`Interrupt`](crate::backend::Interrupt).
    #[error("the forward pass was interrupted")]
    Interrupted,
    /// The backend failed, without information about individual sequences.
    #[error("backend: {0}")]
    Backend(String),
}

impl StepError {
    /// The sequence at fault, if known.
    pub fn seq(&self) -> Option<SeqId> {
        match self {
            Self::Sequence { seq, .. } | Self::InvalidToken { seq, .. } | Self::Position { seq, .. } => {
                Some(*seq)
            }
            _ => None,
        }
    }
}

/// Error of an operation on the KV of a sequence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The session cannot do this; its [`Capabilities`](crate::backend::Capabilities) say so.
    #[error("{0} is not supported by this session")]
    Unsupported(&'static str),
    /// The sequence id is not below `sequences_max`, or the target of a fork is not empty.
    #[error("{seq}: {problem}")]
    Sequence {
        /// The sequence.
        seq: SeqId,
        /// The problem.
        problem: &'static str,
    },
    /// A length exceeds the tokens that the sequence holds.
    #[error("{seq}: length {len} requested, but the session holds {held} tokens")]
    Length {
        /// The sequence.
        seq: SeqId,
        /// Requested length in tokens.
        len: usize,
        /// Tokens held.
        held: usize,
    },
    /// The KV cache has no space for the KV to restore.
    #[error("the KV cache is full: {needed} blocks needed, {free} free")]
    Full {
        /// Blocks needed, more than are free.
        needed: usize,
        /// Blocks free.
        free: usize,
    },
    /// Saved KV does not belong to this model or is damaged.
    #[error("saved KV cannot be restored: {0}")]
    Format(String),
    /// Reading or writing failed.
    #[error("saved KV: {0}")]
    Io(#[from] std::io::Error),
    /// A backend-specific failure.
    #[error("backend: {0}")]
    Backend(String),
}
