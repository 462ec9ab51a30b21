//! Writes GGUFs: for tests, fuzzing and tools.

use super::{Array, GgmlType, GgufStream, Value};
use std::io::{self, Write};

/// Collects metadata and tensors and writes them as a GGUF.
///
/// It does not validate its input, so that tests can create damaged files.
///
/// ```
/// use exsa_core::gguf::{GgmlType, Gguf, GgufWriter, Value};
///
/// let bytes = GgufWriter::new()
///     .key("general.architecture", Value::Str("llama".into()))
///     .tensor("output.weight", &[2, 1], GgmlType::F32, vec![0; 8])
///     .to_bytes();
/// let gguf = Gguf::read(&mut std::io::Cursor::new(bytes))?;
/// assert_eq!(gguf.metadata().require::<&str>("general.architecture")?, "llama");
/// # Ok::<(), exsa_core::gguf::GgufError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GgufWriter {
    version: u32,
    alignment: u64,
    metadata: Vec<(String, Value)>,
    tensors: Vec<Entry>,
}

/// A tensor to write.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    shape: Vec<u64>,
    dtype: GgmlType,
    /// Length of the data in bytes.
    bytes: u64,
    /// Empty if the data comes later.
    data: Vec<u8>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }
}

impl GgufWriter {
    /// A writer of version 3 with an alignment of 32.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the version.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets the alignment, of the data and in the metadata.
    pub fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = alignment.into();
        self.key("general.alignment", Value::U32(alignment))
    }

    /// Adds a key.
    pub fn key(mut self, key: &str, value: Value) -> Self {
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Adds a tensor; `shape` begins with the fastest-varying dimension.
    pub fn tensor(mut self, name: &str, shape: &[u64], dtype: GgmlType, data: Vec<u8>) -> Self {
        let bytes = data.len() as u64;
        self.tensors.push(Entry { name: name.to_owned(), shape: shape.to_vec(), dtype, bytes, data });
        self
    }

    /// Adds a tensor whose `bytes` bytes of data follow the header: for files that do not fit in memory. See
    /// [`start`](Self::start).
    pub fn declare(mut self, name: &str, shape: &[u64], dtype: GgmlType, bytes: u64) -> Self {
        self.tensors.push(Entry {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype,
            bytes,
            data: Vec::new(),
        });
        self
    }

    /// Adds a tensor of f32.
    pub fn tensor_f32(self, name: &str, shape: &[u64], data: &[f32]) -> Self {
        self.tensor(name, shape, GgmlType::F32, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// Writes the file, with padding also after the last tensor, without which ggml refuses the file when it
    /// reads all data at once.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write<W: Write>(&self, to: &mut W) -> io::Result<()> {
        let mut bytes = self.to_bytes();
        bytes.resize(bytes.len().next_multiple_of(self.alignment.max(1) as usize), 0);
        to.write_all(&bytes)
    }

    /// The file in memory; tensors that were only declared are zeros.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        let step = self.alignment.max(1);
        for Entry { bytes, data, .. } in &self.tensors {
            out.resize(out.len().next_multiple_of(step as usize), 0);
            out.extend(data);
            out.resize(out.len() + (*bytes as usize - data.len()), 0);
        }
        out
    }

    /// Writes the header. The data of all tensors, of those with data too, is then written through the
    /// stream, in the order in which they were added.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn start<W: Write>(&self, mut to: W) -> io::Result<GgufStream<W>> {
        let header = self.header();
        to.write_all(&header)?;
        let bytes = self.tensors.iter().map(|tensor| tensor.bytes).collect();
        Ok(GgufStream::new(to, header.len() as u64, self.alignment.max(1), bytes))
    }

    /// Everything before the data, without the padding that ends it.
    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        let step = self.alignment.max(1);
        let mut offset = 0u64;
        for Entry { name, shape, dtype, bytes, .. } in &self.tensors {
            put_text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(dtype.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += bytes.next_multiple_of(step);
        }
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(x) => put(0, &x.to_le_bytes()),
        Value::I8(x) => put(1, &x.to_le_bytes()),
        Value::U16(x) => put(2, &x.to_le_bytes()),
        Value::I16(x) => put(3, &x.to_le_bytes()),
        Value::U32(x) => put(4, &x.to_le_bytes()),
        Value::I32(x) => put(5, &x.to_le_bytes()),
        Value::F32(x) => put(6, &x.to_le_bytes()),
        Value::Bool(x) => put(7, &[u8::from(*x)]),
        Value::Str(text) => {
            put(8, &[]);
            put_text(out, text);
        }
        Value::Array(array) => {
            put(9, &[]);
            put_array(out, array);
        }
        Value::U64(x) => put(10, &x.to_le_bytes()),
        Value::I64(x) => put(11, &x.to_le_bytes()),
        Value::F64(x) => put(12, &x.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut start = |kind: u32| {
        out.extend(kind.to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
    };
    macro_rules! numbers {
        ($kind:literal, $values:expr) => {{
            start($kind);
            $values.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(v) => numbers!(0, v),
        Array::I8(v) => numbers!(1, v),
        Array::U16(v) => numbers!(2, v),
        Array::I16(v) => numbers!(3, v),
        Array::U32(v) => numbers!(4, v),
        Array::I32(v) => numbers!(5, v),
        Array::F32(v) => numbers!(6, v),
        Array::Bool(v) => {
            start(7);
            out.extend(v.iter().map(|b| u8::from(*b)));
        }
        Array::Str(v) => {
            start(8);
            v.iter().for_each(|text| put_text(out, text));
        }
        Array::Array(v) => {
            start(9);
            v.iter().for_each(|inner| put_array(out, inner));
        }
        Array::U64(v) => numbers!(10, v),
        Array::I64(v) => numbers!(11, v),
        Array::F64(v) => numbers!(12, v),
    }
}
