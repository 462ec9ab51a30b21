//! The parser: what the bytes of a header mean.

use super::limits::{
    ALIGNMENT_MAX, DIMENSIONS_MAX, KEY_BYTES_MAX, KEYS_MAX, NAME_BYTES_MAX, NESTING_MAX, TENSORS_MAX,
};
use super::source::Source;
use super::{ALIGNMENT_KEY, Array, GgmlType, Gguf, GgufError, GgufFile, Metadata, TensorInfo, Value};
use std::collections::HashMap;
use std::io::{Read, Seek};

/// Bytes that a file spends on each entry at least: of metadata (key length, type, value), and of the
/// directory (name length, dimensions, one dimension, type, offset).
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;

pub(super) fn parse<R: Read + Seek>(reader: &mut R) -> Result<Gguf, GgufError> {
    let mut source = Source::new(reader)?;
    let file_len = source.len();

    let found = source.bytes::<4>("the magic number")?;
    if &found != b"GGUF" {
        return Err(GgufError::Magic { found });
    }
    let version = source.u32("the version")?;
    match version {
        2 | 3 => {}
        1 => return Err(GgufError::Version { version, hint: "convert the file anew" }),
        _ if matches!(version.swap_bytes(), 1..=3) => {
            let hint = "the file is big-endian; convert it for a little-endian machine";
            return Err(GgufError::Version { version, hint });
        }
        _ => return Err(GgufError::Version { version, hint: "the file is damaged or of a later version" }),
    }
    let tensor_count = source.count("the number of tensors", TENSORS_MAX, TENSOR_BYTES_MIN)?;
    let key_count = source.count("the number of metadata keys", KEYS_MAX, ENTRY_BYTES_MIN)?;
    let metadata = source.metadata(key_count)?;
    let alignment = metadata.get::<u64>(ALIGNMENT_KEY)?.unwrap_or(32);
    if !alignment.is_power_of_two() || !(8..=ALIGNMENT_MAX).contains(&alignment) {
        let offset = metadata.offset(ALIGNMENT_KEY);
        return Err(GgufError::Alignment { value: alignment, offset });
    }
    let mut tensors = Vec::new();
    let mut by_name = HashMap::new();
    for _ in 0..tensor_count {
        let at = source.offset();
        let tensor = source.tensor()?;
        if by_name.insert(tensor.name.clone(), tensors.len()).is_some() {
            return Err(GgufError::Duplicate { what: "tensor", name: tensor.name, offset: at });
        }
        tensors.push((at, tensor));
    }
    // A file without tensors may end before the padding does.
    let data_offset = source.offset().next_multiple_of(alignment);
    place(&mut tensors, data_offset, alignment, file_len)?;
    let tensors = tensors.into_iter().map(|(_, tensor)| tensor).collect();
    let files = vec![GgufFile { data_offset, len: file_len }];
    Ok(Gguf { version, alignment, metadata, tensors, by_name, files })
}

/// Makes the tensors' offsets absolute, and checks that their data is aligned, within the file, and does not
/// overlap.
fn place(
    tensors: &mut [(u64, TensorInfo)],
    data_offset: u64,
    alignment: u64,
    file_len: u64,
) -> Result<(), GgufError> {
    for (at, tensor) in tensors.iter_mut() {
        let refuse = |problem| GgufError::Tensor { name: tensor.name.clone(), offset: *at, problem };
        if !tensor.offset.is_multiple_of(alignment) {
            let problem =
                format!("its data offset {} is not a multiple of the alignment {alignment}", tensor.offset);
            return Err(refuse(problem));
        }
        let start = data_offset.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(tensor.bytes)).filter(|end| *end <= file_len);
        match (start, end) {
            (Some(start), Some(_)) => tensor.offset = start,
            _ => {
                return Err(refuse(format!(
                    "its {} bytes at {} past offset {data_offset} end beyond the file of {file_len} bytes",
                    tensor.bytes, tensor.offset
                )));
            }
        }
    }
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, tensor)| tensor.offset);
    for pair in by_offset.windows(2) {
        let ((_, first), (at, second)) = (pair[0], pair[1]);
        if first.offset + first.bytes > second.offset {
            let problem = format!("its data overlaps with that of tensor '{}'", first.name);
            return Err(GgufError::Tensor { name: second.name.clone(), offset: *at, problem });
        }
    }
    Ok(())
}

impl<R: Read> Source<R> {
    fn metadata(&mut self, count: u64) -> Result<Metadata, GgufError> {
        let mut metadata = Metadata::default();
        for _ in 0..count {
            let offset = self.offset();
            // Files in use have comments in Latin-1: only what asks for a text may refuse it. No key that
            // anything asks for is other than ASCII.
            let key = self.lossy_string("a metadata key", KEY_BYTES_MAX)?;
            let key_is_utf8 = self.take_not_utf8().is_none();
            let what = format!("the value of '{key}'");
            let kind = self.u32(&what)?;
            let value = self.value(kind, &what)?;
            let not_utf8 = self.take_not_utf8();
            if !key_is_utf8 {
                metadata.insert_unnamed(key, value, offset, not_utf8);
                continue;
            }
            if metadata.get_value(&key).is_some() {
                return Err(GgufError::Duplicate { what: "key", name: key, offset });
            }
            metadata.insert(key, value, offset, not_utf8);
        }
        Ok(metadata)
    }

    fn value(&mut self, kind: u32, what: &str) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.bytes(what)?)),
            1 => Value::I8(i8::from_le_bytes(self.bytes(what)?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes(what)?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes(what)?)),
            4 => Value::U32(u32::from_le_bytes(self.bytes(what)?)),
            5 => Value::I32(i32::from_le_bytes(self.bytes(what)?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes(what)?)),
            7 => {
                let at = self.offset();
                Value::Bool(boolean(self.bytes(what)?, at, what)?)
            }
            8 => Value::Str(self.lossy_string(what, u64::MAX)?),
            9 => Value::Array(self.array(what, 1)?),
            10 => Value::U64(u64::from_le_bytes(self.bytes(what)?)),
            11 => Value::I64(i64::from_le_bytes(self.bytes(what)?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes(what)?)),
            value => {
                return Err(GgufError::ValueType { what: what.to_owned(), offset: self.offset() - 4, value });
            }
        })
    }

    fn array(&mut self, what: &str, depth: u32) -> Result<Array, GgufError> {
        let at = self.offset();
        let kind = self.u32(what)?;
        let what_count = format!("the number of elements of {what}");
        let bytes_min = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 4 + 8,
            value => return Err(GgufError::ValueType { what: what.to_owned(), offset: at, value }),
        };
        let n = self.count(&what_count, u64::MAX, bytes_min)?;
        Ok(match kind {
            0 => Array::U8(self.items(n, what, u8::from_le_bytes)?),
            1 => Array::I8(self.items(n, what, i8::from_le_bytes)?),
            2 => Array::U16(self.items(n, what, u16::from_le_bytes)?),
            3 => Array::I16(self.items(n, what, i16::from_le_bytes)?),
            4 => Array::U32(self.items(n, what, u32::from_le_bytes)?),
            5 => Array::I32(self.items(n, what, i32::from_le_bytes)?),
            6 => Array::F32(self.items(n, what, f32::from_le_bytes)?),
            7 => {
                let at = self.offset();
                let bytes = self.items(n, what, |byte: [u8; 1]| byte)?;
                let booleans = bytes.into_iter().zip(at..).map(|(byte, at)| boolean(byte, at, what));
                Array::Bool(booleans.collect::<Result<_, _>>()?)
            }
            8 => {
                // A string takes 24 bytes in memory and as few as 8 in the file: let the vector grow.
                let mut texts = Vec::new();
                for _ in 0..n {
                    texts.push(self.lossy_string(what, u64::MAX)?);
                }
                Array::Str(texts)
            }
            9 if depth >= NESTING_MAX => {
                let what = format!("the nesting of {what}");
                let value = u64::from(depth) + 1;
                return Err(GgufError::Limit { what, offset: at, value, limit: NESTING_MAX.into() });
            }
            9 => {
                let mut arrays = Vec::new();
                for _ in 0..n {
                    arrays.push(self.array(what, depth + 1)?);
                }
                Array::Array(arrays)
            }
            10 => Array::U64(self.items(n, what, u64::from_le_bytes)?),
            11 => Array::I64(self.items(n, what, i64::from_le_bytes)?),
            _ => Array::F64(self.items(n, what, f64::from_le_bytes)?),
        })
    }

    /// An entry of the directory; its offset still counts from the start of the data.
    fn tensor(&mut self) -> Result<TensorInfo, GgufError> {
        let at = self.offset();
        let name = self.string("a tensor's name", NAME_BYTES_MAX)?;
        let what = format!("the entry of tensor '{name}'");
        let refuse = |problem| GgufError::Tensor { name: name.clone(), offset: at, problem };
        let dimensions = self.u32(&what)?;
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(refuse(format!("{dimensions} dimensions; 1 to {DIMENSIONS_MAX} are allowed")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64(&what)?);
        }
        let id = self.u32(&what)?;
        let dtype = GgmlType::from_id(id).ok_or_else(|| refuse(format!("type {id} is unknown")))?;
        let bytes = TensorInfo::bytes_of(&shape, dtype).map_err(refuse)?;
        let offset = self.u64(&what)?;
        Ok(TensorInfo { name, shape, dtype, offset, bytes, file: 0 })
    }
}

fn boolean([byte]: [u8; 1], offset: u64, what: &str) -> Result<bool, GgufError> {
    match byte {
        0 | 1 => Ok(byte == 1),
        value => Err(GgufError::Bool { what: what.to_owned(), offset, value }),
    }
}
