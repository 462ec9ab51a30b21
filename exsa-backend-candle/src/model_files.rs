//! The files of a model, mapped: where the bytes of each tensor lie.

use crate::converted;
use crate::kernels::memory::team::Team;
use crate::mapping::Mapping;
use crate::packed_tensor::damaged;
use exsa_core::backend::{LoadOptions, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, TensorInfo};
use exsa_core::model_file::ModelFile;
use exsa_core::model_info;
use exsa_quant::{Mixture, QuantizeOptions, planned_types};
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// Types of files that are quantized while they are loaded.
const FLOATS: [GgmlType; 3] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];

/// A model's header and its files, mapped.
pub(crate) struct ModelFiles {
    header: ModelFile,
    /// By [`TensorInfo::file`].
    mappings: Vec<Arc<Mapping>>,
}

impl ModelFiles {
    /// Maps the model of `source` and reads its header.
    pub fn open(source: &ModelSource) -> Result<Self, LoadError> {
        let header = ModelFile::open(source)?;
        model_info::check_type(header.gguf())?;
        let mut mappings = match header.paths() {
            [] => vec![Mapping::open(source)?],
            paths => paths.iter().map(|path| Mapping::file(path)).collect::<Result<_, _>>()?,
        };
        if let Some(memory) = header.memory() {
            mappings.push(Mapping::open(&ModelSource::Memory(Arc::clone(memory)))?);
        }
        for (at, (mapping, file)) in mappings.iter().zip(header.gguf().files()).enumerate() {
            let found = mapping.bytes().len() as u64;
            if found != file.len {
                let name = header.paths().get(at).map_or(String::new(), |path| path.display().to_string());
                return Err(LoadError::Backend(format!(
                    "{name} changed while it was opened: it had {} bytes and has {found}",
                    file.len
                )));
            }
        }
        Ok(Self { header, mappings: mappings.into_iter().map(Arc::new).collect() })
    }

    /// The same with what `options` say about metadata and types of weights.
    pub fn open_with(source: &ModelSource, options: &LoadOptions) -> Result<Self, LoadError> {
        let mut files = Self::open(source)?;
        for key in files.header.override_metadata(&options.metadata_overrides)? {
            log::warn!("metadata override of '{key}', which the model's file does not have");
        }
        if let Some(dtype) = options.quantize {
            files.quantize(dtype)?;
        }
        Ok(files)
    }

    /// Gives matrices of floats the types of the mixture whose main type is `dtype`.
    fn quantize(&mut self, dtype: GgmlType) -> Result<(), LoadError> {
        let mut mixtures: Vec<Mixture> =
            Mixture::all().filter(|mixture| mixture.default_type() == dtype).collect();
        mixtures.sort_by_key(|mixture| !mixture.name().ends_with("_M"));
        let Some(mixture) = mixtures.first() else {
            let names: Vec<&str> = Mixture::all().map(|mixture| mixture.default_type().name()).collect();
            return Err(LoadError::Option {
                option: "quantize",
                problem: format!("weights are not quantized to {dtype}; {} are allowed", names.join(", ")),
            });
        };
        let types = planned_types(self.gguf(), &QuantizeOptions::new(*mixture))?;
        for (index, planned) in types.into_iter().enumerate() {
            let tensor = &self.gguf().tensors()[index];
            let narrower = !FLOATS.contains(&planned) || planned == dtype;
            if FLOATS.contains(&tensor.dtype) && narrower && tensor.shape.len() > 1 {
                self.header.retype(index, planned);
            }
        }
        Ok(())
    }

    /// The header.
    pub fn gguf(&self) -> &Gguf {
        self.header.gguf()
    }

    /// The bytes of `tensor` in its file, before any conversion.
    pub fn stored(&self, tensor: &TensorInfo) -> Option<&[u8]> {
        let bytes = self.header.source(tensor).map_or(tensor.bytes, |source| source.bytes);
        let start = usize::try_from(tensor.offset).ok()?;
        let end = start.checked_add(usize::try_from(bytes).ok()?)?;
        self.mappings.get(tensor.file)?.bytes().get(start..end)
    }

    /// Whether the bytes of `tensor` are used where they lie in the file.
    pub fn is_stored(&self, tensor: &TensorInfo) -> bool {
        self.header.source(tensor).is_none()
    }

    /// The bytes of `tensor` in the model, as a range of a mapping: its file, or memory with what they were
    /// converted to on `team`.
    pub fn tensor(
        &self,
        tensor: &TensorInfo,
        team: &mut Team,
    ) -> Result<(Arc<Mapping>, Range<usize>), LoadError> {
        let stored = self.stored(tensor).ok_or_else(|| damaged(tensor))?;
        let Some(source) = self.header.source(tensor) else {
            let mapping = self.mappings.get(tensor.file).ok_or_else(|| damaged(tensor))?;
            let start = usize::try_from(tensor.offset).map_err(|_| damaged(tensor))?;
            return Ok((Arc::clone(mapping), start..start + stored.len()));
        };
        let converted = converted::convert(tensor, source, stored, team)?;
        let range = 0..converted.bytes().len();
        Ok((Arc::new(converted), range))
    }

    /// Lengths and times of the last change of the files; `None` in memory, or where the system tells no
    /// time.
    pub fn stamps(&self) -> Option<Vec<(u64, SystemTime)>> {
        if self.header.paths().is_empty() {
            return None;
        }
        let files = self.mappings.iter().take(self.header.paths().len());
        files.map(|mapping| mapping.file_stamp()).collect()
    }

    /// The bytes of each file before its tensors.
    pub fn headers(&self) -> impl Iterator<Item = &[u8]> {
        self.mappings.iter().zip(self.gguf().files()).map(|(mapping, file)| {
            let bytes = mapping.bytes();
            let len = usize::try_from(file.data_offset).unwrap_or(usize::MAX);
            &bytes[..len.min(bytes.len())]
        })
    }

    /// The conversions of tensors, in words.
    pub fn conversions(&self) -> impl Iterator<Item = String> {
        self.header.sources().map(|(name, source)| format!("{name} {source:?}"))
    }

    /// Bytes that the host holds beside the files.
    pub fn copied_bytes(&self) -> u64 {
        self.mappings.iter().map(|mapping| mapping.copied_bytes()).fold(0, u64::saturating_add)
    }
}
