//! A GGUF file split into parts, which can be changed and reassembled.

use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, GgufError, GgufWriter, Value};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Metadata and tensors of a GGUF. [`set`](Self::set) and the methods beside it change a
/// copy by parts, and [`bytes`](Self::bytes) assembles a file of them.
///
/// ```
/// use exsa_conformance::edit::Edit;
/// use exsa_core::gguf::{GgufWriter, Value};
///
/// let file = GgufWriter::new().key("general.architecture", Value::Str("llama".into())).to_bytes();
/// let edit = Edit::of(&file)?.set("general.architecture", Value::Str("abacus".into()));
/// assert_eq!(edit.get("general.architecture"), Some(&Value::Str("abacus".into())));
/// assert_eq!(edit.without("general.architecture").metadata.len(), 0);
/// # Ok::<(), exsa_core::gguf::GgufError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Edit {
    /// Keys and values, in the order of the file.
    pub metadata: Vec<(String, Value)>,
    /// Tensors, in the order of the file.
    pub tensors: Vec<Tensor>,
}

/// A tensor with its data.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name: `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions, the contiguous dimension first.
    pub shape: Vec<u64>,
    /// Type of the values.
    pub dtype: GgmlType,
    /// The values as they are in the file.
    pub data: Vec<u8>,
}

impl Edit {
    /// Splits a file into parts.
    ///
    /// # Errors
    ///
    /// Those of [`Gguf::read`].
    pub fn of(bytes: &[u8]) -> Result<Self, GgufError> {
        let gguf = Gguf::read(&mut Cursor::new(bytes))?;
        let metadata = gguf.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let data = |offset: u64, len: u64| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
            bytes.get(start..end).unwrap_or_default().to_vec()
        };
        let tensors = gguf.tensors().iter().map(|tensor| Tensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
            data: data(tensor.offset, tensor.bytes),
        });
        Ok(Self { metadata, tensors: tensors.collect() })
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Replaces a value in its place, or adds it at the end.
    #[must_use]
    pub fn set(mut self, key: &str, value: Value) -> Self {
        match self.metadata.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(known, _)| known != key);
        self
    }

    /// Adds a tensor of `f32` at the end.
    #[must_use]
    pub fn add_f32(mut self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push(Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: GgmlType::F32,
            data,
        });
        self
    }

    /// Removes a tensor.
    #[must_use]
    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// The tensor `name`.
    pub fn tensor(&mut self, name: &str) -> Option<&mut Tensor> {
        self.tensors.iter_mut().find(|tensor| tensor.name == name)
    }

    /// Changes one tensor; no effect if it is absent.
    #[must_use]
    pub fn change(mut self, name: &str, change: impl FnOnce(&mut Tensor)) -> Self {
        if let Some(tensor) = self.tensor(name) {
            change(tensor);
        }
        self
    }

    /// Assembles the file.
    pub fn bytes(&self) -> Vec<u8> {
        let writer = GgufWriter::new();
        let writer = self.metadata.iter().fold(writer, |w, (key, value)| w.key(key, value.clone()));
        let add = |w: GgufWriter, t: &Tensor| w.tensor(&t.name, &t.shape, t.dtype, t.data.clone());
        self.tensors.iter().fold(writer, add).to_bytes()
    }

    /// Assembles a split model of `parts` files, as llama.cpp's `gguf-split` does: metadata are in the first,
    /// and tensors are dealt out in their order, as many to each.
    pub fn split(&self, parts: usize) -> Vec<Vec<u8>> {
        let parts = parts.max(1);
        let each = self.tensors.len().div_ceil(parts).max(1);
        let part = |index: usize| {
            let mut part = Self::default();
            if index == 0 {
                part.metadata.clone_from(&self.metadata);
            }
            part.tensors = self.tensors.iter().skip(index * each).take(each).cloned().collect();
            part.set("split.no", Value::U16(index as u16))
                .set("split.count", Value::U16(parts as u16))
                .set("split.tensors.count", Value::I32(self.tensors.len() as i32))
                .bytes()
        };
        (0..parts).map(part).collect()
    }

    /// Writes the files of [`split`](Self::split) into `folder`, called `{stem}-00001-of-00003.gguf` and so
    /// on.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn write_split(&self, folder: &Path, stem: &str, parts: usize) -> std::io::Result<Vec<PathBuf>> {
        let files = (1..).zip(self.split(parts));
        let write = |(number, bytes): (usize, Vec<u8>)| {
            let path = folder.join(format!("{stem}-{number:05}-of-{parts:05}.gguf"));
            std::fs::write(&path, bytes).map(|()| path)
        };
        files.map(write).collect()
    }

    /// Assembles the file in memory.
    pub fn source(&self) -> ModelSource {
        ModelSource::Memory(self.bytes().into())
    }

    /// Loads the assembled file with default options.
    ///
    /// # Errors
    ///
    /// Those of [`InferenceBackend::load`].
    pub fn load(&self, backend: &dyn InferenceBackend) -> Result<Arc<dyn Model>, LoadError> {
        backend.load(&self.source(), &LoadOptions::default(), &mut LoadProgress::none())
    }
}

impl Tensor {
    /// Removes the last row, or the last value of a vector.
    pub fn drop_last_row(&mut self) {
        let Some(rows) = self.shape.last_mut().filter(|rows| **rows > 0) else { return };
        let row_bytes = self.data.len() as u64 / *rows;
        *rows -= 1;
        self.data.truncate((row_bytes * *rows) as usize);
    }
}
