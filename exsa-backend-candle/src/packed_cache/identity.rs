//! The model that a packed file was made of.

use crate::model_files::ModelFiles;
use exsa_core::backend::Fingerprint;
use std::time::{Duration, SystemTime};

/// Bytes at both ends of a tensor that identify it.
const SAMPLE: usize = 64;

/// Identity of a model's files and of their state after a change: lengths, times of modification, and a hash
/// of the headers (metadata and tensors), of the first and last bytes of each tensor, and of what is done to
/// them while loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelIdentity {
    pub file_bytes: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
    pub content: Fingerprint,
}

impl ModelIdentity {
    /// The identity of the model of `files`; `None` if it is no file, or one without a time.
    pub fn of(files: &ModelFiles) -> Option<Self> {
        let stamps = files.stamps()?;
        let gguf = files.gguf();
        if gguf.tensors().is_empty() {
            return None;
        }
        let mut content = Fingerprint::default();
        files.headers().for_each(|header| content.update(header));
        for tensor in gguf.tensors() {
            let data = files.stored(tensor)?;
            content.update(&data[..data.len().min(SAMPLE)]);
            content.update(&data[data.len().saturating_sub(SAMPLE)..]);
        }
        for conversion in files.conversions() {
            content.update(conversion.as_bytes());
        }
        let (&(_, first), rest) = stamps.split_first()?;
        for &(len, modified) in rest {
            content.update(&len.to_le_bytes());
            content.update(&nanoseconds(modified).to_le_bytes());
        }
        let file_bytes = stamps.iter().map(|(len, _)| *len).fold(0, u64::saturating_add);
        Some(Self { file_bytes, modified: nanoseconds(first), content })
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
