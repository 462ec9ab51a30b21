//! The GGUF container, versions 2 and 3: header, metadata and tensor directory.
//!
//! [`Gguf::read`] takes any `Read + Seek` and never reads tensor data; mapping or reading it is left to the
//! backend. Files are not trusted: every count and length is checked against the rest of the file before
//! memory of that size is allocated. The format is described in the `docs/gguf.md` of the ggml project.
//!
//! Text that is not UTF-8 is kept with U+FFFD in place of the wrong bytes. Only a caller that asks for exact
//! text ([`Metadata::get`]) gets an error, so that a comment in Latin-1 does not make a model unusable. Names
//! of tensors must be valid UTF-8; a key that is not UTF-8 is listed but cannot be found by name.
//!
//! # Limits
//!
//! Beyond what the file's length allows, a header takes at most [`HEADER_BYTES_MAX`] bytes, with at most
//! [`KEYS_MAX`] keys of [`KEY_BYTES_MAX`] bytes and [`TENSORS_MAX`] tensors whose names have
//! [`NAME_BYTES_MAX`] bytes and whose shapes have [`DIMENSIONS_MAX`] dimensions; arrays nest [`NESTING_MAX`]
//! deep, and the alignment is at most [`ALIGNMENT_MAX`]. More is an error that names key or tensor and the
//! offset. Memory is taken as bytes are read; it stays within a small multiple of the header's own length.

mod dtype;
mod error;
mod from_value;
mod limits;
mod metadata;
mod parse;
mod source;
mod split;
mod stream;
mod tensor;
mod value;
mod writer;

pub use dtype::GgmlType;
pub use error::GgufError;
pub use from_value::FromValue;
pub use limits::{
    ALIGNMENT_MAX, DIMENSIONS_MAX, HEADER_BYTES_MAX, KEY_BYTES_MAX, KEYS_MAX, NAME_BYTES_MAX, NESTING_MAX,
    TENSORS_MAX,
};
pub use metadata::Metadata;
pub use split::{Split, split_path, split_paths};
pub use stream::GgufStream;
pub use tensor::TensorInfo;
pub use value::{Array, Value};
pub use writer::GgufWriter;

use std::collections::HashMap;
use std::io::{Read, Seek};

const ALIGNMENT_KEY: &str = "general.alignment";

/// A parsed GGUF header.
///
/// ```
/// use exsa_core::gguf::Gguf;
/// use std::fs::File;
///
/// # fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let gguf = Gguf::read(&mut File::open("model.gguf")?)?;
/// println!("{:?}", gguf.metadata().get::<&str>("general.name")?);
/// for tensor in gguf.tensors() {
///     println!("{} {:?} {}", tensor.name, tensor.shape, tensor.dtype);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    files: Vec<GgufFile>,
}

/// A file of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgufFile {
    /// Offset of the tensor data, in bytes from the start of the file.
    pub data_offset: u64,
    /// Length of the file in bytes.
    pub len: u64,
}

impl Gguf {
    /// Reads header, metadata and tensor directory from the start of `reader`, wherever it stands. Reads are
    /// buffered here; where `reader` stands afterwards is not specified.
    ///
    /// # Errors
    ///
    /// [`GgufError`] if the file is invalid or cannot be read.
    pub fn read<R: Read + Seek>(reader: &mut R) -> Result<Self, GgufError> {
        parse::parse(reader)
    }

    /// Version of the format, 2 or 3; 0 for a header that was made of another format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data in bytes, a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the order of the file; of a split model, in the order of its files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|at| &self.tensors[*at])
    }

    /// Offset of the tensor data, in bytes from the start of the first file.
    pub fn data_offset(&self) -> u64 {
        self.files.first().map_or(0, |file| file.data_offset)
    }

    /// Length in bytes of the file, or of all files of the model.
    pub fn file_len(&self) -> u64 {
        self.files.iter().map(|file| file.len).fold(0, u64::saturating_add)
    }

    /// The files of the model, by which [`TensorInfo::file`] counts: one, unless it is split.
    pub fn files(&self) -> &[GgufFile] {
        &self.files
    }

    /// A header that was put together in memory, with tensors that the caller has checked.
    #[cfg(feature = "safetensors")]
    pub(crate) fn assemble(
        metadata: Metadata,
        tensors: Vec<TensorInfo>,
        files: Vec<GgufFile>,
    ) -> Result<Self, GgufError> {
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (at, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), at).is_some() {
                return Err(GgufError::Duplicate {
                    what: "tensor",
                    name: tensor.name.clone(),
                    offset: tensor.offset,
                });
            }
        }
        Ok(Self { version: 0, alignment: 1, metadata, tensors, by_name, files })
    }

    /// Gives the tensor at `index` another type, and the bytes that it then has; false where its shape has
    /// no such type.
    pub(crate) fn retype(&mut self, index: usize, dtype: GgmlType) -> bool {
        let Some(tensor) = self.tensors.get_mut(index) else { return false };
        let Ok(bytes) = TensorInfo::bytes_of(&tensor.shape, dtype) else { return false };
        (tensor.dtype, tensor.bytes) = (dtype, bytes);
        true
    }

    /// The metadata, to be changed.
    pub(crate) fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}
