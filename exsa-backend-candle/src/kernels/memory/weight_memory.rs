//! Memory of packed weights: of the process, or of a mapped file.

use super::pages::Pages;
use memmap2::Mmap;
use std::ops::Range;
use std::sync::Arc;

/// Alignment that kernels expect of packed weights, in bytes.
pub const ALIGNMENT: usize = 64;

/// Packed bytes of a matrix, aligned to [`ALIGNMENT`]. They do not change.
pub struct WeightMemory {
    /// Keeps the memory.
    _owner: Owner,
    at: *const u8,
    len: usize,
}

/// The memory that bytes lie in.
enum Owner {
    Pages { _pages: Pages },
    Mapped { _map: Arc<Mmap> },
}

// SAFETY: the bytes are only read, and their owner may go to other threads.
unsafe impl Send for WeightMemory {}
// SAFETY: as above.
unsafe impl Sync for WeightMemory {}

impl WeightMemory {
    /// The bytes `range` of a mapped file; `None` if they are not all there, or not aligned.
    pub fn mapped(map: &Arc<Mmap>, range: Range<usize>) -> Option<Self> {
        let bytes = map.get(range)?;
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT);
        let (at, len) = (bytes.as_ptr(), bytes.len());
        aligned.then(|| Self { _owner: Owner::Mapped { _map: Arc::clone(map) }, at, len })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: they lie in the owner's memory, which neither moves nor changes while it is here.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl From<Pages> for WeightMemory {
    fn from(pages: Pages) -> Self {
        let (at, len) = (pages.as_slice().as_ptr(), pages.as_slice().len());
        Self { _owner: Owner::Pages { _pages: pages }, at, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapMut;

    #[test]
    fn ranges_outside_and_misaligned_ones_are_refused() {
        let mut map = MmapMut::map_anon(300).unwrap();
        map[128] = 7;
        let map = Arc::new(map.make_read_only().unwrap());
        let bytes = |range| WeightMemory::mapped(&map, range).map(|memory| memory.as_slice().to_vec());
        assert_eq!(bytes(128..130), Some(vec![7, 0]));
        assert_eq!(bytes(256..300).map(|bytes| bytes.len()), Some(44));
        assert_eq!(bytes(256..301), None, "past the end");
        assert_eq!(bytes(320..320), None, "past the end");
        assert_eq!(bytes(8..16), None, "misaligned");
    }

    #[test]
    fn memory_outlives_its_map() {
        let mut map = MmapMut::map_anon(64).unwrap();
        map.fill(9);
        let map = Arc::new(map.make_read_only().unwrap());
        let memory = WeightMemory::mapped(&map, 0..64).unwrap();
        drop(map);
        assert_eq!(memory.as_slice(), [9; 64]);
    }
}
