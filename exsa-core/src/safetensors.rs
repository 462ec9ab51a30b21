//! Headers of safetensors files.

use crate::gguf::{GgmlType, TensorInfo};
use serde_json::Value;
use std::io::{Read, Seek, SeekFrom};

/// Maximum bytes of a header.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Maximum dimensions of a tensor.
const DIMENSIONS_MAX: usize = 4;

/// A validated header: the tensors fill the rest of the file, without gaps or overlaps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SafetensorsHeader {
    /// The tensors in the order of their bytes. Shapes have the order of GGUF, fastest dimension first;
    /// offsets are relative to the start of the file.
    pub tensors: Vec<TensorInfo>,
}

impl SafetensorsHeader {
    /// Reads the header from `reader`. Memory is allocated only for bytes that exist, at most 16 MiB.
    ///
    /// # Errors
    ///
    /// Description of the problem.
    pub fn read(reader: &mut (impl Read + Seek)) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let file_bytes = reader.seek(SeekFrom::End(0)).map_err(failed)?;
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut len = [0; 8];
        if file_bytes < len.len() as u64 {
            return Err(format!("it has {file_bytes} bytes, but a safetensors file has 8 or more"));
        }
        reader.read_exact(&mut len).map_err(failed)?;
        let (len, left) = (u64::from_le_bytes(len), file_bytes - 8);
        if len > left.min(HEADER_BYTES_MAX) {
            return Err(format!(
                "its header takes {len} bytes, but {left} bytes follow and {HEADER_BYTES_MAX} are allowed"
            ));
        }
        let mut header = Vec::new();
        reader.take(len).read_to_end(&mut header).map_err(failed)?;
        let header: Value = serde_json::from_slice(&header)
            .map_err(|error| format!("its header is not valid JSON: {error}"))?;
        let Value::Object(header) = header else { return Err("its header is not a JSON object".to_owned()) };
        let entries = header.iter().filter(|(name, _)| *name != "__metadata__");
        let tensors = entries.map(|(name, value)| {
            tensor(name, value, left - len).map_err(|problem| format!("tensor '{name}': {problem}"))
        });
        let mut tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
        let mut end = 0;
        for tensor in &mut tensors {
            if tensor.offset != end {
                return Err(format!(
                    "tensor '{}' begins at byte {} of the data, but the tensors before it end at {end}",
                    tensor.name, tensor.offset
                ));
            }
            end += tensor.bytes;
            tensor.offset += 8 + len;
        }
        if end != left - len {
            return Err(format!("its tensors have {end} bytes, but {} follow the header", left - len));
        }
        Ok(Self { tensors })
    }
}

/// The tensor described by `value`, with its location in `bytes_max` bytes of data.
fn tensor(name: &str, value: &Value, bytes_max: u64) -> Result<TensorInfo, String> {
    let dtype = match value.get("dtype").and_then(Value::as_str) {
        Some("F32") => GgmlType::F32,
        Some("F16") => GgmlType::F16,
        Some("BF16") => GgmlType::BF16,
        Some(other) => return Err(format!("its type is {other}, but F32, F16, BF16 are allowed")),
        None => return Err("it has no dtype".to_owned()),
    };
    let numbers = |key: &str| -> Result<Vec<u64>, String> {
        let list = value.get(key).and_then(Value::as_array);
        let list = list.filter(|list| list.len() <= DIMENSIONS_MAX);
        list.and_then(|list| list.iter().map(Value::as_u64).collect())
            .ok_or_else(|| format!("{key} is not a list of up to {DIMENSIONS_MAX} whole numbers"))
    };
    let mut shape = numbers("shape")?;
    shape.reverse();
    let [start, end] = numbers("data_offsets")?[..] else {
        return Err("data_offsets is not a pair of numbers".to_owned());
    };
    if start > end || end > bytes_max {
        return Err(format!("its byte range is {start} to {end}, but the data has {bytes_max} bytes"));
    }
    let elements = shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
    let bytes = elements.and_then(|n| n.checked_mul(dtype.block_bytes()));
    if bytes != Some(end - start) {
        return Err(format!(
            "its shape {shape:?} (fastest first) does not fit into its {} bytes",
            end - start
        ));
    }
    Ok(TensorInfo { name: name.to_owned(), shape, dtype, offset: start, bytes: end - start, file: 0 })
}
