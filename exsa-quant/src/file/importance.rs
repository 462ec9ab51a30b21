//! Importance matrices in the formats of llama.cpp's `llama-imatrix`.

use super::ImportanceError;
use exsa_core::gguf::{Array, GgmlType, Gguf, GgufWriter, TensorInfo, Value};
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Suffixes of the two tensors per weight in a GGUF file: sums of squared activations, with a row per expert,
/// and the number of tokens summed over.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Maximum bytes of a tensor's name.
const NAME_BYTES_MAX: u64 = 1024;

/// The importance of each column of a model's matrices: the mean square of its activations over a calibration
/// text.
///
/// For a tensor of experts, the columns of all experts are concatenated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportanceMatrix {
    tensors: BTreeMap<String, Vec<f32>>,
}

/// The calibration text of an importance matrix, in chunks of equal numbers of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CalibrationText {
    /// Names of the text files.
    pub names: Vec<String>,
    /// Number of chunks.
    pub chunks: u32,
    /// Tokens per chunk.
    pub chunk_tokens: u32,
}

impl CalibrationText {
    /// A calibration text without file names.
    #[must_use]
    pub fn new(chunks: u32, chunk_tokens: u32) -> Self {
        Self { names: Vec::new(), chunks, chunk_tokens }
    }

    /// Adds the name of a file.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Total number of tokens.
    pub fn tokens(&self) -> u64 {
        u64::from(self.chunks) * u64::from(self.chunk_tokens)
    }
}

impl ImportanceMatrix {
    /// A matrix without tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the importance of a tensor's columns.
    ///
    /// # Errors
    ///
    /// [`ImportanceError::Value`] for a number that is negative or not finite.
    pub fn insert(&mut self, tensor: &str, columns: Vec<f32>) -> Result<(), ImportanceError> {
        if let Some(index) = columns.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            let value = columns[index];
            return Err(ImportanceError::Value { tensor: tensor.to_owned(), index, value });
        }
        self.tensors.insert(tensor.to_owned(), columns);
        Ok(())
    }

    /// The importance of the columns of `tensor`.
    pub fn get(&self, tensor: &str) -> Option<&[f32]> {
        self.tensors.get(tensor).map(Vec::as_slice)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Reads a matrix from a GGUF file or the older `imatrix.dat`.
    ///
    /// # Errors
    ///
    /// [`ImportanceError`] if the file is invalid or cannot be read.
    pub fn read<R: Read + Seek>(reader: &mut R) -> Result<Self, ImportanceError> {
        let len = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        let mut magic = Vec::new();
        reader.take(4).read_to_end(&mut magic)?;
        if magic == b"GGUF" {
            return Self::read_gguf(reader);
        }
        reader.seek(SeekFrom::Start(0))?;
        Self::read_legacy(&mut LegacyReader { reader: BufReader::new(reader), left: len })
    }

    /// The matrix, computed from `text`, as a GGUF file that llama.cpp can read.
    pub fn to_gguf(&self, text: &CalibrationText) -> GgufWriter {
        let writer = GgufWriter::new()
            .key("general.type", Value::Str("imatrix".into()))
            .key("imatrix.datasets", Value::Array(Array::Str(text.names.clone())))
            .key("imatrix.chunk_count", Value::U32(text.chunks))
            .key("imatrix.chunk_size", Value::U32(text.chunk_tokens));
        let count = text.tokens().max(1) as f32;
        self.tensors.iter().fold(writer, |writer, (name, columns)| {
            let sums: Vec<f32> = columns.iter().map(|mean| mean * count).collect();
            writer.tensor_f32(&format!("{name}{SUMS}"), &[columns.len() as u64, 1], &sums).tensor_f32(
                &format!("{name}{COUNTS}"),
                &[1, 1],
                &[count],
            )
        })
    }

    fn read_gguf<R: Read + Seek>(reader: &mut R) -> Result<Self, ImportanceError> {
        let gguf = Gguf::read(reader)?;
        let mut matrix = Self::new();
        for sums_info in gguf.tensors() {
            let Some(name) = sums_info.name.strip_suffix(SUMS) else { continue };
            let counts_info = gguf
                .tensor(&format!("{name}{COUNTS}"))
                .ok_or_else(|| ImportanceError::Format(format!("tensor '{name}{COUNTS}' is missing")))?;
            let columns = sums_info.shape[0];
            if sums_info.elements() / columns != counts_info.elements() {
                let problem = format!(
                    "'{}' has shape {:?} and '{}' has shape {:?}, but one count per row is required",
                    sums_info.name, sums_info.shape, counts_info.name, counts_info.shape
                );
                return Err(ImportanceError::Format(problem));
            }
            let (mut means, counts) = (read_f32(reader, sums_info)?, read_f32(reader, counts_info)?);
            for (means, count) in means.chunks_exact_mut(columns as usize).zip(counts) {
                // An expert that received no token: the importance of its columns is unknown.
                let known = count > 0.0;
                means.iter_mut().for_each(|mean| *mean = if known { *mean / count } else { 1.0 });
            }
            matrix.insert(name, means)?;
        }
        if matrix.is_empty() {
            return Err(ImportanceError::Format(format!("the GGUF has no tensor named '*{SUMS}'")));
        }
        Ok(matrix)
    }

    /// The older format: the number of entries, then for each its name, a number of calls and sums of
    /// squares. The rest, about the calibration text, is ignored.
    fn read_legacy<R: Read>(reader: &mut LegacyReader<R>) -> Result<Self, ImportanceError> {
        let entries = reader.count("the number of entries", 12)?;
        let mut matrix = Self::new();
        for entry in 0..entries {
            let name_len = reader.count(&format!("the length of name {entry}"), 1)?;
            if name_len > NAME_BYTES_MAX {
                let problem =
                    format!("name {entry} has {name_len} bytes; at most {NAME_BYTES_MAX} are allowed");
                return Err(ImportanceError::Format(problem));
            }
            let name = String::from_utf8(reader.bytes(name_len)?)
                .map_err(|_| ImportanceError::Format(format!("name {entry} is not UTF-8")))?;
            let calls = i32::from_le_bytes(reader.array("a number of calls")?);
            let values = reader.count(&format!("the number of values of '{name}'"), 4)?;
            let bytes = reader.bytes(4 * values)?;
            let calls = if calls > 0 { calls as f32 } else { 1.0 };
            matrix.insert(&name, f32s(&bytes).map(|sum| sum / calls).collect())?;
        }
        Ok(matrix)
    }
}

/// All values of a tensor of F32.
fn read_f32<R: Read + Seek>(reader: &mut R, tensor: &TensorInfo) -> Result<Vec<f32>, ImportanceError> {
    if tensor.dtype != GgmlType::F32 {
        let problem = format!("tensor '{}' is {}; F32 is allowed", tensor.name, tensor.dtype);
        return Err(ImportanceError::Format(problem));
    }
    reader.seek(SeekFrom::Start(tensor.offset))?;
    let mut bytes = Vec::new();
    // The parser has checked that the file contains these bytes.
    reader.take(tensor.bytes).read_to_end(&mut bytes)?;
    Ok(f32s(&bytes).collect())
}

fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// Reader of the older format, which checks every length.
struct LegacyReader<R> {
    reader: R,
    left: u64,
}

impl<R: Read> LegacyReader<R> {
    /// Reads a number of items that take at least `bytes_min` bytes each.
    fn count(&mut self, what: &str, bytes_min: u64) -> Result<u64, ImportanceError> {
        let count = i32::from_le_bytes(self.array(what)?);
        match u64::try_from(count) {
            Ok(count) if count > 0 && count <= self.left / bytes_min => Ok(count),
            _ => Err(ImportanceError::Format(format!(
                "{what} is {count}; at least 1 is required, and {} bytes are left in the file",
                self.left
            ))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ImportanceError> {
        let Some(left) = self.left.checked_sub(N as u64) else {
            return Err(ImportanceError::Format(format!("the file ends before {what}")));
        };
        self.left = left;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// `count` bytes, which [`count`](Self::count) has allowed.
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, ImportanceError> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(count).read_to_end(&mut bytes)?;
        self.left -= bytes.len() as u64;
        if bytes.len() as u64 != count {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(bytes)
    }
}
