//! Errors of opening and using a cache.

use crate::FormatError;
use exsa_core::prompt_cache::EntryId;
use std::io;
use std::path::PathBuf;

/// Error of an operation on a prompt cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The folder cannot be used.
    #[error("folder of the prompt cache {}: {problem}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The problem, and the values that are allowed.
        problem: String,
    },
    /// A key is invalid.
    #[error("key of the prompt cache: {0}, but 32 bytes or 64 hexadecimal digits are required")]
    Key(String),
    /// There is no entry with this id.
    #[error("no entry {0} in the prompt cache")]
    Unknown(EntryId),
    /// The data is not a valid entry.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Reading or writing failed.
    #[error("prompt cache: {0}")]
    Io(#[from] io::Error),
}
