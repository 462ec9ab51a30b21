//! A packed file, mapped.

use super::check::checksum;
use super::layout::{PackedEntry, PackedLayout};
use crate::kernels::memory::weight_memory::WeightMemory;
use memmap2::Mmap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The reason why a packed file is not used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is none.
    Missing,
    /// It cannot be read, or is not the one that is needed.
    Unusable(String),
}

/// The packed file of a model. Clones share the mapping.
#[derive(Clone, Debug)]
pub(crate) struct PackedFile {
    path: Arc<PathBuf>,
    map: Arc<Mmap>,
    layout: Arc<PackedLayout>,
    /// Checksums of all blocks, as the file has them.
    sums: Arc<Vec<u64>>,
}

impl PackedFile {
    /// Maps the file at `path` if it is whole and its header is that of `layout`. Blocks are not checked.
    pub(super) fn open(path: &Path, layout: &Arc<PackedLayout>) -> Result<Self, Refusal> {
        let unusable = |problem: String| Refusal::Unusable(problem);
        let io = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => Refusal::Missing,
            _ => unusable(error.to_string()),
        };
        let mut file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(unusable("it is no file".to_owned()));
        }
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
            if mode & 0o022 != 0 {
                return Err(unusable(format!("others may write it: mode {mode:04o}, allowed is 0600")));
            }
        }
        let mut header = vec![0; layout.header_bytes()];
        let (is, expected) = (metadata.len(), layout.file_bytes as u64);
        if is < header.len() as u64 {
            return Err(unusable(format!("it has {is} bytes, but {expected} are expected")));
        }
        file.read_exact(&mut header).map_err(io)?;
        let (prefix, sums) = header.split_at(layout.header.len());
        if prefix != layout.header {
            return Err(unusable("its header is of another model, version or layout".to_owned()));
        }
        if is != expected {
            return Err(unusable(format!("it has {is} bytes, but {expected} are expected")));
        }
        let (sums, _) = sums.as_chunks::<8>();
        let mut sums: Vec<u64> = sums.iter().map(|sum| u64::from_le_bytes(*sum)).collect();
        let own = sums.pop();
        if own != Some(checksum(&header[..header.len() - size_of::<u64>()])) {
            return Err(unusable("its checksums are damaged".to_owned()));
        }
        // SAFETY: a mapping is undefined behaviour only if the file changes under it. Packed files are
        // replaced, not rewritten, by all who write them, and others may not write this one; the
        // documentation asks for the same.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        if map.len() as u64 != expected {
            return Err(unusable(format!("it has {} bytes, but {expected} are expected", map.len())));
        }
        let (path, sums) = (Arc::new(path.to_owned()), Arc::new(sums));
        Ok(Self { path, map: Arc::new(map), layout: Arc::clone(layout), sums })
    }

    /// Place of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its layout.
    pub fn layout(&self) -> &PackedLayout {
        &self.layout
    }

    /// The packed form of tensor `name`.
    pub fn entry(&self, name: &str) -> Option<&PackedEntry> {
        self.layout.entries.get(name)
    }

    /// The bytes of a matrix, where they lie.
    pub fn memory(&self, entry: &PackedEntry) -> Option<WeightMemory> {
        WeightMemory::mapped(&self.map, entry.bytes.clone())
    }

    /// The matrices in their order, each with its name, bytes and checksums.
    pub(super) fn matrices(&self) -> impl Iterator<Item = (&str, &[u8], &[u64])> {
        self.layout.order.iter().filter_map(|name| {
            let entry = self.layout.entries.get(name)?;
            let sums = self.sums.get(entry.first_block..entry.first_block + entry.blocks())?;
            Some((name.as_str(), self.map.get(entry.bytes.clone())?, sums))
        })
    }

    /// Brings bytes of the file into memory, as far as the system can.
    pub fn populate(&self, start: usize, len: usize) {
        #[cfg(target_os = "linux")]
        {
            // Without it, they come when they are first read.
            let _ = self.map.advise_range(memmap2::Advice::PopulateRead, start, len);
        }
        #[cfg(all(unix, not(target_os = "linux")))]
        {
            let _ = self.map.advise_range(memmap2::Advice::WillNeed, start, len);
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }

    /// Tells the system that these bytes are read soon.
    pub fn fetch(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if len > 0 {
            let _ = self.map.advise_range(memmap2::Advice::WillNeed, start, len);
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }

    /// Tells the system that these bytes are not needed for now.
    pub fn release(&self, start: usize, len: usize) {
        #[cfg(unix)]
        {
            // SAFETY: a read-only mapping of a file: its pages come back with the same content when they are
            // read.
            let _ =
                unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }
}
