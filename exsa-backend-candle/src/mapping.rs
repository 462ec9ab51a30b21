//! The bytes of a model file.

use exsa_core::backend::ModelSource;
use exsa_core::error::LoadError;
use memmap2::{Mmap, MmapMut};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Alignment that memory must have to be used where it lies, in bytes.
const ALIGNMENT: usize = 8;

/// The bytes of a model file, aligned to [`ALIGNMENT`].
pub(crate) enum Mapping {
    /// A mapped file, and the time of its last change, if the system knows it.
    Mapped(Mmap, Option<SystemTime>),
    /// A copy of misaligned memory, or weights that were converted, of so many bytes.
    Copied(Mmap, usize),
    /// Memory of the program.
    Static(&'static [u8]),
    /// Memory of the host.
    Shared(Arc<[u8]>),
}

impl Mapping {
    /// Maps `source`.
    pub fn open(source: &ModelSource) -> Result<Self, LoadError> {
        exsa_core::model_info::check_source(source)?;
        match source {
            ModelSource::File(path) => Self::file(path),
            ModelSource::Embedded(bytes) if is_aligned(bytes) => Ok(Self::Static(bytes)),
            ModelSource::Embedded(bytes) => Self::copy(bytes),
            ModelSource::Memory(bytes) if is_aligned(bytes) => Ok(Self::Shared(Arc::clone(bytes))),
            ModelSource::Memory(bytes) => Self::copy(bytes),
            _ => Err(LoadError::Unsupported {
                what: "this source of a model".to_owned(),
                supported: "a file, embedded bytes, bytes in memory".to_owned(),
            }),
        }
    }

    /// Maps the file at `path`.
    pub fn file(path: &Path) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
        // SAFETY: a mapping is undefined behaviour only if the file changes under it. Model files are
        // read-only data that are replaced, not rewritten; the documentation of the backend asks for it.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self::Mapped(map, modified))
    }

    fn copy(bytes: &[u8]) -> Result<Self, LoadError> {
        Self::filled(bytes.len(), |copy| copy.copy_from_slice(bytes))
    }

    /// Memory of `len` bytes that `fill` fills.
    pub fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self, LoadError> {
        let copy = MmapMut::map_anon(len.max(1)).and_then(|mut map| {
            fill(&mut map[..len]);
            map.make_read_only()
        });
        let map = copy.map_err(|_| LoadError::Memory {
            what: "weights in memory",
            needed: len as u64,
            available: 0,
        })?;
        Ok(Self::Copied(map, len))
    }

    /// Tells the system that these bytes are not needed for now. They are read from the file again if they
    /// are.
    pub fn release(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if let Self::Mapped(map, _) = self {
            // SAFETY: a read-only mapping of a file: its pages come back with the same content when they are
            // read.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }

    /// Tells the system that these bytes are needed soon.
    pub fn fetch(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if let Self::Mapped(map, _) = self
            && len > 0
        {
            // Without it, it is slower, not wrong.
            let _ = map.advise_range(memmap2::Advice::WillNeed, start, len);
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }

    /// Length and time of the last change of a mapped file.
    pub fn file_stamp(&self) -> Option<(u64, SystemTime)> {
        match self {
            Self::Mapped(map, modified) => modified.map(|modified| (map.len() as u64, modified)),
            Self::Copied(..) | Self::Static(_) | Self::Shared(_) => None,
        }
    }

    /// Bytes that the host holds beside the source.
    pub fn copied_bytes(&self) -> u64 {
        match self {
            Self::Copied(_, len) => *len as u64,
            Self::Mapped(..) | Self::Static(_) | Self::Shared(_) => 0,
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map, _) => map,
            Self::Copied(map, len) => &map[..*len],
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(ALIGNMENT) == 0
}
