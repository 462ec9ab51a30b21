//! The model that a packed file was made of.

use crate::mapping::Mapping;
use exsa_core::backend::Fingerprint;
use exsa_core::gguf::Gguf;
use std::time::{Duration, SystemTime};

/// Bytes at both ends of a tensor that identify it.
const SAMPLE: usize = 64;

/// Identity of a model's file and of its state after a change: length, time of modification, and
/// a hash of the header (metadata and tensors) and of the first and last bytes of each tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelIdentity {
    pub file_bytes: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
    pub content: Fingerprint,
}

impl ModelIdentity {
    /// The identity of the model `gguf`, whose bytes are `mapping`; `None` if it is no file, or one without a
    /// time.
    pub fn of(gguf: &Gguf, mapping: &Mapping) -> Option<Self> {
        let (file_bytes, modified) = mapping.file_stamp()?;
        let bytes = mapping.bytes();
        let place = |at: u64| usize::try_from(at).ok().map(|at| at.min(bytes.len()));
        let header = gguf.tensors().iter().map(|tensor| tensor.offset).min().and_then(place)?;
        let mut content = Fingerprint::default();
        content.update(&bytes[..header]);
        for tensor in gguf.tensors() {
            let (start, end) = (place(tensor.offset)?, place(tensor.offset.checked_add(tensor.bytes)?)?);
            let data = bytes.get(start..end)?;
            content.update(&data[..data.len().min(SAMPLE)]);
            content.update(&data[data.len().saturating_sub(SAMPLE)..]);
        }
        Some(Self { file_bytes, modified: nanoseconds(modified), content })
    }
}

/// Nanoseconds from 1970 to `time`, negative before.
fn nanoseconds(time: SystemTime) -> i128 {
    let since = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => since(after),
        Err(before) => -since(before.duration()),
    }
}
