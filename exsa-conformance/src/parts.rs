//! A GGUF file in parts, for reassembly with an error.

use exsa_core::gguf::{GgmlType, Gguf, GgufError, GgufWriter, Value};
use std::io::Cursor;

/// Metadata and tensors of a GGUF.
#[derive(Clone)]
pub(crate) struct Parts {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

/// A tensor with its data.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub dtype: GgmlType,
    pub data: Vec<u8>,
}

impl Parts {
    /// Splits a file into parts.
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

    /// Replaces or adds a value.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(known, _)| known != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Removes a key.
    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(known, _)| known != key);
        self
    }

    /// Removes a tensor.
    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// Changes one tensor.
    pub fn change(mut self, name: &str, change: impl FnOnce(&mut Tensor)) -> Self {
        self.tensors.iter_mut().filter(|tensor| tensor.name == name).take(1).for_each(change_once(change));
        self
    }

    /// Assembles the file.
    pub fn bytes(&self) -> Vec<u8> {
        let writer = GgufWriter::new();
        let writer = self.metadata.iter().fold(writer, |w, (key, value)| w.key(key, value.clone()));
        let add = |w: GgufWriter, t: &Tensor| w.tensor(&t.name, &t.shape, t.dtype, t.data.clone());
        self.tensors.iter().fold(writer, add).to_bytes()
    }
}

fn change_once(change: impl FnOnce(&mut Tensor)) -> impl FnMut(&mut Tensor) {
    let mut change = Some(change);
    move |tensor| {
        if let Some(change) = change.take() {
            change(tensor);
        }
    }
}
