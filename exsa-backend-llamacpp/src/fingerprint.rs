//! Fingerprints of models: of their headers and of samples of their weights.

use crate::adapter::Adapter;
use crate::source::{Bytes, Checked};
use exsa_core::backend::Fingerprint;
use exsa_core::error::LoadError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Number of samples of each file's weights.
const SAMPLES: u64 = 64;

/// Size of a sample in bytes.
const SAMPLE_BYTES: u64 = 4096;

/// Appends up to `len` bytes from an offset of a file to a buffer, fewer at its end.
type ReadAt<'a> = dyn FnMut(u64, usize, &mut Vec<u8>) -> Result<(), LoadError> + 'a;

/// Collects the fingerprint of a model and its adapters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fingerprinter(pub Fingerprint);

impl Fingerprinter {
    /// Starts with a model.
    pub fn of(checked: &Checked<'_>) -> Result<Self, LoadError> {
        let mut fingerprint = Self::default();
        let header = checked.gguf.data_offset();
        match &checked.bytes {
            Bytes::Memory(bytes) => {
                fingerprint.sample(bytes.len() as u64, header, &mut |start, len, buffer| {
                    let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
                    let end = start.saturating_add(len).min(bytes.len());
                    buffer.extend_from_slice(&bytes[start..end]);
                    Ok(())
                })?;
            }
            Bytes::Files(paths) => {
                for (part, path) in paths.iter().enumerate() {
                    fingerprint.file(path, if part == 0 { header } else { 0 })?;
                }
            }
        }
        // Another base of RoPE gives other answers of the same weights.
        for item in &checked.overrides {
            fingerprint.0.update(item.to_string().as_bytes());
        }
        Ok(fingerprint)
    }

    /// Adds an adapter, unless its scale is 0.
    pub fn add(&mut self, adapter: &Adapter, scale: f32) {
        if scale != 0.0 {
            self.0.update(&adapter.fingerprint.0.to_le_bytes());
            self.0.update(&scale.to_le_bytes());
        }
    }

    /// Adds a file with a header of `header` bytes.
    fn file(&mut self, path: &Path, header: u64) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        self.sample(len, header, &mut |start, len, buffer| {
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            Read::by_ref(&mut file).take(len as u64).read_to_end(buffer).map_err(io)?;
            Ok(())
        })
    }

    /// Adds the length, the first `header` bytes, and samples of the rest.
    fn sample(&mut self, len: u64, header: u64, read: &mut ReadAt<'_>) -> Result<(), LoadError> {
        self.0.update(&len.to_le_bytes());
        let mut buffer = Vec::new();
        read(0, usize::try_from(header).unwrap_or(usize::MAX), &mut buffer)?;
        self.0.update(&buffer);
        let step = (len.saturating_sub(header) / SAMPLES).max(SAMPLE_BYTES);
        let mut start = header;
        while start < len {
            buffer.clear();
            read(start, SAMPLE_BYTES as usize, &mut buffer)?;
            self.0.update(&buffer);
            start += step;
        }
        Ok(())
    }
}
