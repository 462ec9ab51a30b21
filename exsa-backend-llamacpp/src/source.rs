//! Model sources. Core parses and checks all headers before llama.cpp opens anything.

use exsa_core::backend::{LoadOptions, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::gguf::{Gguf, TensorInfo};
use exsa_core::model_file::{MetadataOverride, ModelFile};
use exsa_core::model_info::{self, ModelInfo};
use std::path::PathBuf;

/// A model whose headers core has checked.
pub(crate) struct Checked<'a> {
    /// Location of the weights.
    pub bytes: Bytes<'a>,
    /// The header, over all parts of a split model, with the host's metadata in it.
    pub gguf: Gguf,
    /// Metadata that the host sets.
    pub overrides: Vec<MetadataOverride>,
    /// Description of the model.
    pub info: ModelInfo,
}

impl Checked<'_> {
    /// The tensors of all parts.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.gguf.tensors().iter()
    }

    /// The tensor of this name, from any part.
    #[cfg(test)]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.gguf.tensor(name)
    }
}

/// Location of weights.
pub(crate) enum Bytes<'a> {
    /// Files in order; a single one unless the model is split.
    Files(Vec<PathBuf>),
    /// In memory.
    Memory(&'a [u8]),
}

/// Reads the headers of `source`.
pub(crate) fn open(source: &ModelSource) -> Result<Checked<'_>, LoadError> {
    open_with(source, &LoadOptions::new())
}

/// The same with the metadata that `options` set.
pub(crate) fn open_with<'a>(
    source: &'a ModelSource,
    options: &LoadOptions,
) -> Result<Checked<'a>, LoadError> {
    if let Some(dtype) = options.quantize {
        return Err(LoadError::Option {
            option: "quantize",
            problem: format!(
                "llama.cpp does not quantize to {dtype} while loading; none is allowed, for a file that was quantized before"
            ),
        });
    }
    // Core reads other folders of models than llama.cpp.
    model_info::check_source(source)?;
    let mut file = ModelFile::open(source)?;
    model_info::check_type(file.gguf())?;
    for key in file.override_metadata(&options.metadata_overrides)? {
        tracing::warn!("metadata override of '{key}', which the model's file does not have");
    }
    let bytes = match source {
        ModelSource::Embedded(bytes) => Bytes::Memory(bytes),
        ModelSource::Memory(bytes) => Bytes::Memory(bytes),
        _ => Bytes::Files(file.paths().to_vec()),
    };
    let gguf = file.gguf().clone();
    let info = ModelInfo::from_gguf(&gguf)?;
    Ok(Checked { bytes, gguf, overrides: options.metadata_overrides.clone(), info })
}
