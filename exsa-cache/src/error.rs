//! Reasons for which a cache cannot be opened or an act on it fails.

use crate::FormatError;
use exsa_core::prompt_cache::EntryId;
use std::io;
use std::path::PathBuf;

/// Why an act on a prompt cache failed.
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
    /// A key is no key.
    #[error("key of the prompt cache: {0}; allowed are 32 bytes, or 64 hexadecimal digits")]
    Key(String),
    /// No entry has this name.
    #[error("no entry {0} in the prompt cache")]
    Unknown(EntryId),
    /// The bytes are no entry.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Reading or writing failed.
    #[error("prompt cache: {0}")]
    Io(#[from] io::Error),
}
