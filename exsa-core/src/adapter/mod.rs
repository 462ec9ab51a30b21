//! LoRA adapters (Hu et al., arXiv:2106.09685): adapters of requests and engines, and adapter files. The
//! header of a file is checked against the model before any weight is read, and weights are checked while
//! they are read.
//!
//! Two formats are supported: llama.cpp's GGUF adapters ([`AdapterFile::open`] on a file or bytes) and, with
//! the feature `peft`, folders saved by PEFT (`adapter_config.json` and `adapter_model.safetensors`). Both
//! contain pairs of matrices `A` and `B` for matrices `W` of the model, whose output becomes `W x + scale · B
//! (A x)`.

mod base;
mod gguf;
pub(crate) mod memory;
mod pair;
#[cfg(feature = "peft")]
mod peft;
pub(crate) mod request;

#[cfg(feature = "peft")]
pub use crate::safetensors::SafetensorsHeader;
pub use base::{BaseMatrix, BaseModel};
pub use pair::{AdapterPair, AdapterTensor, Factor};
#[cfg(feature = "peft")]
pub use peft::PeftConfig;
pub use request::{AdapterError, AdapterOptions, AdapterStatus, RequestAdapter};

use crate::backend::{AdapterLimits, ModelSource};
use crate::error::LoadError;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Maximum rank of any adapter. Files with a larger rank are refused as damaged.
pub const RANK_MAX: usize = 4096;

/// An adapter whose header was checked against a model.
pub struct AdapterFile {
    name: String,
    architecture: String,
    reader: Box<dyn Source>,
    pairs: Vec<AdapterPair>,
}

/// A seekable source of weights.
trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

impl AdapterFile {
    /// Opens the adapter `source` for the model `base` and checks its header.
    ///
    /// # Errors
    ///
    /// [`LoadError::Adapter`] if the adapter is invalid, [`LoadError::Io`] if it cannot be read.
    pub fn open(source: &ModelSource, base: &BaseModel<'_>) -> Result<Self, LoadError> {
        match source {
            ModelSource::File(path) if path.is_dir() => Self::open_folder(path, base),
            ModelSource::File(path) => Self::open_gguf(path.display().to_string(), open(path)?, base),
            ModelSource::Files(paths) => Err(LoadError::Adapter {
                name: paths.first().map_or_else(String::new, |path| path.display().to_string()),
                problem: format!("{} files are given, but an adapter is one file or folder", paths.len()),
            }),
            ModelSource::Embedded(bytes) => Self::open_gguf(in_memory(), Cursor::new(*bytes), base),
            ModelSource::Memory(bytes) => Self::open_gguf(in_memory(), Cursor::new(Arc::clone(bytes)), base),
        }
    }

    fn new(
        name: String,
        base: &BaseModel<'_>,
        reader: impl Source + 'static,
        pairs: Vec<AdapterPair>,
    ) -> Self {
        Self { name, architecture: base.architecture.to_owned(), reader: Box::new(reader), pairs }
    }

    fn open_gguf(
        name: String,
        mut reader: impl Source + 'static,
        base: &BaseModel<'_>,
    ) -> Result<Self, LoadError> {
        match gguf::pairs(&mut reader, base) {
            Ok(pairs) => Ok(Self::new(name, base, reader, pairs)),
            Err(problem) => Err(LoadError::Adapter { name, problem }),
        }
    }

    #[cfg(feature = "peft")]
    fn open_folder(path: &Path, base: &BaseModel<'_>) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        let weights = path.join(peft::WEIGHTS_FILE);
        let mut reader = open(&weights)?;
        let config = peft::read_config(&mut open(&path.join(peft::CONFIG_FILE))?);
        match config.and_then(|config| peft::pairs(&config, &mut reader, base)) {
            Ok(pairs) => Ok(Self::new(name, base, reader, pairs)),
            Err(problem) => Err(LoadError::Adapter { name, problem }),
        }
    }

    #[cfg(not(feature = "peft"))]
    fn open_folder(path: &Path, _: &BaseModel<'_>) -> Result<Self, LoadError> {
        let problem =
            "it is a folder, but this build reads only GGUF files, since the feature 'peft' is not enabled"
                .to_owned();
        Err(LoadError::Adapter { name: path.display().to_string(), problem })
    }

    /// Path of the adapter, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `general.architecture` of the model that the adapter was checked against.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The pairs of matrices, at least one, each for a different matrix of the model.
    pub fn pairs(&self) -> &[AdapterPair] {
        &self.pairs
    }

    /// Largest rank of the pairs.
    pub fn rank(&self) -> usize {
        self.pairs.iter().map(|pair| pair.rank).max().unwrap_or(0)
    }

    /// Checks the rank, and the `bytes` that the adapter will take in memory, against limits.
    ///
    /// # Errors
    ///
    /// [`LoadError::Adapter`] if the rank is over its limit, [`LoadError::Memory`] if the bytes are.
    pub fn check_limits(&self, limits: &AdapterLimits, bytes: u64) -> Result<(), LoadError> {
        let (rank, allowed) = (self.rank(), limits.rank_max);
        if rank > allowed {
            return Err(self.refuse(format!("its rank is {rank}, but at most {allowed} is allowed")));
        }
        if bytes > limits.bytes_max {
            let (needed, available) = (bytes, limits.bytes_max);
            return Err(LoadError::Memory { what: "the adapter", needed, available });
        }
        Ok(())
    }

    /// Reads a matrix of pair `index`, row by row, in the data type of the file.
    ///
    /// # Errors
    ///
    /// [`LoadError::Adapter`] if it cannot be read or has values that are not finite.
    pub fn read(&mut self, index: usize, factor: Factor, into: &mut Vec<u8>) -> Result<(), LoadError> {
        let Some(pair) = self.pairs.get(index) else {
            return Err(self.refuse(format!("it has no pair {index}")));
        };
        let tensor = pair.tensor(factor);
        let read = self.reader.seek(SeekFrom::Start(tensor.offset)).and_then(|_| {
            into.clear();
            // The length was checked against the file's length on opening.
            (&mut self.reader).take(tensor.bytes).read_to_end(into)
        });
        let problem = match read {
            Ok(len) if len as u64 == tensor.bytes => match pair.check_values(factor, into) {
                Ok(()) => {
                    pair.order_rows(factor, into);
                    return Ok(());
                }
                Err(problem) => problem,
            },
            Ok(len) => format!("{} ends after {len} of {} bytes", pair.weight, tensor.bytes),
            Err(error) => format!("{}: {error}", pair.weight),
        };
        Err(self.refuse(problem))
    }

    /// The error that this adapter cannot be used, with the reason.
    pub fn refuse(&self, problem: impl Into<String>) -> LoadError {
        LoadError::Adapter { name: self.name.clone(), problem: problem.into() }
    }
}

impl std::fmt::Debug for AdapterFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdapterFile")
            .field("name", &self.name)
            .field("pairs", &self.pairs)
            .finish_non_exhaustive()
    }
}

fn in_memory() -> String {
    "in memory".to_owned()
}

fn open(path: &Path) -> Result<File, LoadError> {
    File::open(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })
}
