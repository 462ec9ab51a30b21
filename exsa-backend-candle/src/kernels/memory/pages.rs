//! Memory for weights: anonymous, zeroed, 64-byte aligned, on 2 MiB pages where the system gives them.
//!
//! A plain read of weights runs a third faster on 2 MiB pages than on the 4 KiB ones that a file mapping has.

use memmap2::{MmapMut, MmapOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const HUGE_PAGE: usize = 2 << 20;

/// Bytes that an [`Arena`] asks the system for at a time.
const CHUNK: usize = 64 << 20;

/// Alignment of a run of bytes.
const ALIGNMENT: usize = 128;

/// Bytes of all [`Pages`] of the process.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes of all [`Pages`] of the process, for tests and benchmarks.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// A run of zeroed memory.
pub struct Pages {
    /// Keeps the memory.
    _map: Arc<MmapMut>,
    at: *mut u8,
    len: usize,
}

// SAFETY: it has its bytes to itself, as a vector has.
unsafe impl Send for Pages {}
// SAFETY: as above; shared, they are only read.
unsafe impl Sync for Pages {}

impl Pages {
    /// Takes `len` bytes. The error says what the system said.
    pub fn zeroed(len: usize) -> std::io::Result<Self> {
        Arena::default().take_from_new(len, len)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes are in the map, initialized by the system, and nobody writes them while they are
        // borrowed.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and no other run has them.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        HELD.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Gives out runs of memory that lie side by side, so that small ones share large pages. The memory goes back
/// to the system with the last of the runs that it was asked for together with.
pub struct Arena {
    chunk: Option<Chunk>,
    /// Bytes that will still be taken, at most.
    expected: usize,
}

struct Chunk {
    map: Arc<MmapMut>,
    next: *mut u8,
    left: usize,
}

// SAFETY: what is left belongs to the chunk alone.
unsafe impl Send for Chunk {}

impl Default for Arena {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Arena {
    /// An arena of which about `expected` bytes will be taken: it asks the system for no more.
    pub fn new(expected: usize) -> Self {
        Self { chunk: None, expected }
    }

    /// Bytes that a run of `len` bytes takes.
    pub fn step(len: usize) -> usize {
        len.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX)
    }

    /// Takes `len` bytes. The error says what the system said.
    pub fn take(&mut self, len: usize) -> std::io::Result<Pages> {
        let size = len.max(CHUNK.min(self.expected));
        self.expected = self.expected.saturating_sub(Self::step(len));
        match &mut self.chunk {
            Some(chunk) if chunk.left >= len => Ok(chunk.take(len)),
            _ => self.take_from_new(len, size),
        }
    }

    fn take_from_new(&mut self, len: usize, size: usize) -> std::io::Result<Pages> {
        let slack = if size >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let size = size.max(ALIGNMENT).checked_add(slack).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let mut map = MmapOptions::new().len(size).map_anon()?;
        #[cfg(target_os = "linux")]
        if slack > 0 {
            // Without huge pages it is slower, not wrong.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let first = map.as_mut_ptr();
        let address = first as usize;
        let skipped = if slack > 0 { address.next_multiple_of(HUGE_PAGE) - address } else { 0 };
        let (next, left) = (first.wrapping_add(skipped), size - skipped);
        Ok(self.chunk.insert(Chunk { map: Arc::new(map), next, left }).take(len))
    }
}

impl Chunk {
    /// The next `len` bytes, which are left.
    fn take(&mut self, len: usize) -> Pages {
        HELD.fetch_add(len, Ordering::Relaxed);
        let pages = Pages { _map: Arc::clone(&self.map), at: self.next, len };
        let step = Arena::step(len).min(self.left);
        self.next = self.next.wrapping_add(step);
        self.left -= step;
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_zeroed_aligned_and_apart() {
        let mut arena = Arena::default();
        let mut runs: Vec<Pages> = [1, 100, 0, 3 << 20, CHUNK, 7, CHUNK + 1, 64]
            .into_iter()
            .map(|len| arena.take(len).unwrap())
            .collect();
        for (i, run) in runs.iter_mut().enumerate() {
            assert_eq!(run.at as usize % ALIGNMENT, 0);
            assert!(run.as_slice().iter().all(|byte| *byte == 0), "{i}");
            run.as_mut_slice().fill(i as u8 + 1);
        }
        drop(arena);
        for (i, run) in runs.iter().enumerate() {
            assert!(run.as_slice().iter().all(|byte| *byte == i as u8 + 1), "{i}");
        }
    }

    #[test]
    fn more_than_there_is_fails() {
        assert!(Pages::zeroed(usize::MAX).is_err());
        assert!(Arena::default().take(usize::MAX / 2).is_err());
    }
}
