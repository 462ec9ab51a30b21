//! GGUFs with changes.

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, GgufWriter, Value};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// A model in parts.
#[derive(Clone)]
pub struct Edit {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub dtype: GgmlType,
    pub data: Vec<u8>,
}

impl Edit {
    /// The parts of a micro model.
    pub fn of(name: &str) -> Self {
        Self::of_file(&super::data(&format!("{name}.gguf")))
    }

    /// The parts of a file.
    pub fn of_file(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let gguf = Gguf::read(&mut Cursor::new(&bytes)).unwrap();
        let metadata = gguf.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let tensors = gguf.tensors().iter().map(|tensor| Tensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
            data: bytes[tensor.offset as usize..][..tensor.bytes as usize].to_vec(),
        });
        Self { metadata, tensors: tensors.collect() }
    }

    pub fn set(mut self, key: &str, value: Value) -> Self {
        match self.metadata.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    pub fn remove(mut self, key: &str) -> Self {
        self.metadata.retain(|(known, _)| known != key);
        self
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let writer =
            self.metadata.iter().fold(GgufWriter::new(), |w, (key, value)| w.key(key, value.clone()));
        let add = |w: GgufWriter, t: &Tensor| w.tensor(&t.name, &t.shape, t.dtype, t.data.clone());
        self.tensors.iter().fold(writer, add).to_bytes()
    }

    pub fn load(&self) -> Result<Arc<dyn Model>, LoadError> {
        let source = ModelSource::Memory(self.bytes().into());
        LlamaCppBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::none())
    }
}
