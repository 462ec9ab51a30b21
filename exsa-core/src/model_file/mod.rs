//! Model files: the header of a [`ModelSource`], whatever form it has.
//!
//! [`ModelFile::open`] reads a GGUF, finds and checks the other files of a split one, and, with the feature
//! `safetensors`, translates a folder of Hugging Face's form. Backends map the files and read each tensor
//! from [`TensorInfo::file`](crate::gguf::TensorInfo::file).
//!
//! Tensors whose bytes in the file are not those of the model have a [`TensorSource`]: another type, or a
//! [`Conversion`].

#[cfg(feature = "safetensors")]
mod folder;
mod overrides;
mod parts;

pub use overrides::{MetadataOverride, OverrideError, OverrideValue};

use crate::backend::ModelSource;
use crate::error::LoadError;
use crate::gguf::{GgmlType, Gguf, TensorInfo};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The header of a model, over all its files, and where its weights lie.
///
/// ```
/// use exsa_core::gguf::{GgufWriter, Value};
/// use exsa_core::model_file::ModelFile;
///
/// let bytes = GgufWriter::new().key("general.architecture", Value::Str("llama".into())).to_bytes();
/// let file = ModelFile::open(&bytes.into())?;
/// assert!(file.paths().is_empty(), "it is in memory");
/// assert_eq!(file.gguf().metadata().len(), 1);
/// # Ok::<(), exsa_core::error::LoadError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelFile {
    gguf: Gguf,
    paths: Vec<PathBuf>,
    /// A file in memory behind those of `paths`.
    memory: Option<Arc<[u8]>>,
    sources: BTreeMap<String, TensorSource>,
}

/// Bytes of a tensor that are not yet those of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorSource {
    /// Type of the elements in the file; [`TensorInfo::dtype`] is the type in the model.
    pub dtype: GgmlType,
    /// Length of the data in the file, in bytes, from [`TensorInfo::offset`] on.
    pub bytes: u64,
    /// The change of the values.
    pub conversion: Conversion,
}

/// A change of a tensor's values between the file and the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conversion {
    /// None.
    #[default]
    None,
    /// The rows of each of so many heads are put into the order in which the pairs of RoPE are adjacent: row
    /// `2 i + j` of a head of `2 n` rows is row `j n + i` of the file.
    PairRows {
        /// Number of heads.
        heads: u64,
    },
    /// 1 is added to each value.
    AddOne,
}

impl ModelFile {
    /// Opens the model of `source` and reads its headers: of a split model, those of all parts, whichever of
    /// them `source` names.
    ///
    /// # Errors
    ///
    /// [`LoadError::Io`] and [`LoadError::Gguf`] for a file that is missing, cannot be read or is damaged,
    /// [`GgufError::Split`](crate::gguf::GgufError::Split) for files that do not belong together,
    /// [`LoadError::Folder`] for a folder without a model.
    pub fn open(source: &ModelSource) -> Result<Self, LoadError> {
        match source {
            #[cfg(feature = "safetensors")]
            ModelSource::File(path) if folder::is_model(path) => folder::open(path),
            ModelSource::File(path) => {
                crate::model_info::check_source(source)?;
                parts::open(path)
            }
            ModelSource::Files(paths) => parts::open_all(paths),
            ModelSource::Embedded(bytes) => Self::in_memory(bytes),
            ModelSource::Memory(bytes) => Self::in_memory(bytes),
        }
    }

    fn in_memory(bytes: &[u8]) -> Result<Self, LoadError> {
        let gguf = Gguf::read(&mut Cursor::new(bytes))?;
        if let Some(split) = gguf.split()? {
            return Err(LoadError::Unsupported {
                what: format!("part {} of {} of a split model, in memory", split.index + 1, split.count),
                supported: "split models in files".to_owned(),
            });
        }
        Ok(Self::new(gguf, Vec::new()))
    }

    fn new(gguf: Gguf, paths: Vec<PathBuf>) -> Self {
        Self { gguf, paths, memory: None, sources: BTreeMap::new() }
    }

    /// The header, over all files.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The files, by which [`TensorInfo::file`] counts; none for a model in memory.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Bytes of tensors that were computed from the configuration: one more file behind
    /// [`paths`](Self::paths).
    pub fn memory(&self) -> Option<&Arc<[u8]>> {
        self.memory.as_ref()
    }

    /// How the bytes of `tensor` in its file become those of the model; `None` where they are the same.
    pub fn source(&self, tensor: &TensorInfo) -> Option<&TensorSource> {
        self.sources.get(&tensor.name)
    }

    /// Tensors with a [`source`](Self::source) of their own, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &TensorSource)> {
        self.sources.iter().map(|(name, source)| (name.as_str(), source))
    }

    /// Gives the tensor at `index` of [`Gguf::tensors`] another type in the model; false where its shape has
    /// no such type.
    pub fn retype(&mut self, index: usize, dtype: GgmlType) -> bool {
        let Some(tensor) = self.gguf.tensors().get(index).cloned() else { return false };
        if tensor.dtype == dtype {
            return true;
        }
        if !self.gguf.retype(index, dtype) {
            return false;
        }
        let source = TensorSource { dtype: tensor.dtype, bytes: tensor.bytes, conversion: Conversion::None };
        self.sources.entry(tensor.name).or_insert(source);
        true
    }

    /// Replaces metadata by those of the host. Returns the keys that the file has not, for a warning: they
    /// may be misspelt.
    ///
    /// # Errors
    ///
    /// [`LoadError::Option`] for a value that is not of the type that the file has for its key.
    pub fn override_metadata(&mut self, overrides: &[MetadataOverride]) -> Result<Vec<String>, LoadError> {
        overrides::apply(self.gguf.metadata_mut(), overrides)
    }
}

/// Name of a file, for messages.
fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
