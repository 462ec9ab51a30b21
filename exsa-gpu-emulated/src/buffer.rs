//! Memory of the emulated device.

use exsa_gpu::device::DeviceError;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Alignment of buffers in bytes.
const ALIGNMENT: usize = 256;

/// Memory of the emulated device, freed when its last owner drops it.
///
/// Its bytes are accessed under the device's lock only, by commands.
#[derive(Debug)]
pub struct EmulatedBuffer {
    start: NonNull<u8>,
    layout: Layout,
    used: Arc<AtomicU64>,
}

// SAFETY: the memory is this buffer's own, and is accessed under the device's lock only.
unsafe impl Send for EmulatedBuffer {}
// SAFETY: as above.
unsafe impl Sync for EmulatedBuffer {}

impl EmulatedBuffer {
    /// `bytes` zero bytes, counted in `used` of `total`.
    pub(crate) fn new(bytes: u64, used: &Arc<AtomicU64>, total: u64) -> Result<Self, DeviceError> {
        let full =
            || DeviceError::OutOfMemory { needed: bytes, free: Some(total - used.load(Ordering::Relaxed)) };
        let layout = usize::try_from(bytes).ok().and_then(|n| Layout::from_size_align(n, ALIGNMENT).ok());
        let Some(layout) = layout.filter(|layout| layout.size() > 0) else {
            return Err(DeviceError::Range(format!("a buffer of {bytes} bytes")));
        };
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= total)
        });
        taken.map_err(|_| full())?;
        // SAFETY: the size is not 0.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(full());
        };
        Ok(Self { start, layout, used: Arc::clone(used) })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.layout.size() as u64
    }

    /// The address of byte 0.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for EmulatedBuffer {
    fn drop(&mut self) {
        self.used.fetch_sub(self.len(), Ordering::Relaxed);
        // SAFETY: the memory was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
