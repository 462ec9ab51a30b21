//! Sources of models.

use std::path::PathBuf;
use std::sync::Arc;

/// Source of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ModelSource {
    /// A GGUF file.
    File(PathBuf),
    /// A GGUF inside the program, from `include_bytes!`.
    Embedded(&'static [u8]),
    /// A GGUF in memory.
    Memory(Arc<[u8]>),
}

impl ModelSource {
    /// A GGUF file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }
}
