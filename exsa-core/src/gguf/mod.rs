//! The GGUF container: header, metadata and tensor directory.

/// Why a GGUF was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Reading failed.
    #[error("reading the file: {0}")]
    Io(#[from] std::io::Error),
}
