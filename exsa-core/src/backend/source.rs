//! Sources of models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Source of a model. Paths, and bytes in memory, convert into it.
///
/// ```
/// use exsa_core::backend::ModelSource;
///
/// let source = ModelSource::from("model.gguf");
/// assert!(matches!(source, ModelSource::File(path) if path.ends_with("model.gguf")));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ModelSource {
    /// A GGUF file; of a split model, any of its parts, which finds the others beside it. On backends that
    /// load them, a folder of Hugging Face's form (`config.json`, `tokenizer.json`, `*.safetensors`).
    File(PathBuf),
    /// All parts of a split GGUF file, in order, whatever their names are.
    Files(Vec<PathBuf>),
    /// A GGUF file embedded in the program by `include_bytes!`.
    Embedded(&'static [u8]),
    /// A GGUF file in memory.
    Memory(Arc<[u8]>),
}

impl ModelSource {
    /// A GGUF file, or a folder of Hugging Face's form.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// The file, or the first of several; `None` in memory.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Files(paths) => paths.first().map(PathBuf::as_path),
            Self::Embedded(_) | Self::Memory(_) => None,
        }
    }
}

/// Conversions from paths.
macro_rules! from_paths {
    ($($path:ty),+) => {$(
        impl From<$path> for ModelSource {
            fn from(path: $path) -> Self {
                Self::File(path.into())
            }
        }
    )+};
}

from_paths!(&str, String, &String, &Path, PathBuf, &PathBuf);

impl From<&'static [u8]> for ModelSource {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Embedded(bytes)
    }
}

impl From<Arc<[u8]>> for ModelSource {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Memory(bytes)
    }
}

impl From<Vec<u8>> for ModelSource {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Memory(bytes.into())
    }
}
