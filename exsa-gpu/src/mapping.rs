//! The bytes of a model file.

use crate::device::HostBytes;
use exsa_core::backend::ModelSource;
use exsa_core::error::LoadError;
use exsa_core::model_info;
use memmap2::Mmap;
use std::sync::Arc;

/// The bytes of `source`: a mapped file, or memory.
///
/// # Errors
///
/// [`LoadError::Io`] for a file that cannot be mapped; those of `check_source`.
#[allow(unsafe_code)]
pub(crate) fn open(source: &ModelSource) -> Result<HostBytes, LoadError> {
    model_info::check_source(source)?;
    match source {
        ModelSource::File(path) => {
            let io = |source| LoadError::Io { path: path.clone(), source };
            let file = std::fs::File::open(path).map_err(io)?;
            // SAFETY: a mapping is undefined behaviour only if the file changes under it. Model files are
            // read-only data that are replaced, not rewritten; the documentation of the backend asks for it.
            let map = unsafe { Mmap::map(&file) }.map_err(io)?;
            Ok(Arc::new(map))
        }
        ModelSource::Embedded(bytes) => Ok(Arc::new(*bytes)),
        ModelSource::Memory(bytes) => Ok(Arc::new(Arc::clone(bytes))),
        _ => Err(LoadError::Unsupported {
            what: "this source of a model".to_owned(),
            supported: "a file, embedded bytes, bytes in memory".to_owned(),
        }),
    }
}
