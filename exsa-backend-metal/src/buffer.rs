//! Memory that host and GPU share.

use block2::RcBlock;
use exsa_gpu::device::{DeviceError, HostBytes, check_range};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLBuffer, MTLDevice, MTLResourceOptions};
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;

/// Bytes of a page on Apple's processors; Intel's are smaller. Memory that is used in place begins and ends
/// at its multiples.
const PAGE: usize = 16 << 10;

/// Memory of an Apple GPU, which the host shares.
#[derive(Debug)]
pub struct MetalBuffer {
    raw: Retained<ProtocolObject<dyn MTLBuffer>>,
    /// First byte of this buffer in Metal's.
    start: usize,
    bytes: usize,
    is_writable: bool,
}

// SAFETY: buffers of Metal may be used from any thread; their contents are accessed in the order of a stream.
unsafe impl Send for MetalBuffer {}
// SAFETY: as above.
unsafe impl Sync for MetalBuffer {}

impl MetalBuffer {
    /// `bytes` zero bytes, more than 0.
    pub(crate) fn zeroed(device: &ProtocolObject<dyn MTLDevice>, bytes: usize) -> Option<Self> {
        let raw = device.newBufferWithLength_options(bytes, MTLResourceOptions::StorageModeShared)?;
        // SAFETY: the buffer is new and has as many bytes.
        unsafe { raw.contents().cast::<u8>().as_ptr().write_bytes(0, bytes) };
        Some(Self { raw, start: 0, bytes, is_writable: true })
    }

    /// A copy of `bytes`, not empty.
    pub(crate) fn copied(device: &ProtocolObject<dyn MTLDevice>, bytes: &[u8]) -> Option<Self> {
        let pointer = NonNull::from(bytes).cast::<c_void>();
        let options = MTLResourceOptions::StorageModeShared;
        // SAFETY: the pointer is valid for as many bytes, which the call copies.
        let raw = unsafe { device.newBufferWithBytes_length_options(pointer, bytes.len(), options) }?;
        Some(Self { raw, start: 0, bytes: bytes.len(), is_writable: true })
    }

    /// `memory[range]`, not empty and inside, in place: `None` if the pages that it touches are not all of
    /// `memory`, or Metal refuses.
    pub(crate) fn in_place(
        device: &ProtocolObject<dyn MTLDevice>,
        memory: &HostBytes,
        range: Range<usize>,
    ) -> Option<Self> {
        let all = (**memory).as_ref();
        let base = all.as_ptr() as usize;
        let first = (base + range.start) / PAGE * PAGE;
        let end = (base + range.end).checked_next_multiple_of(PAGE)?;
        if first < base || end > base + all.len() || range.len() > end - first {
            return None;
        }
        let pointer = NonNull::from(&all[first - base..end - base]).cast::<c_void>();
        // Metal drops the block, and with it this owner of the bytes, when the last command that uses the
        // buffer has run.
        let owner = memory.clone();
        let keep = RcBlock::new(move |_: NonNull<c_void>, _: usize| {
            let _ = &owner;
        });
        let options = MTLResourceOptions::StorageModeShared;
        // SAFETY: the pointer is valid for as many bytes, of whole pages, which the block keeps alive; the
        // device only reads them.
        let raw = unsafe {
            device.newBufferWithBytesNoCopy_length_options_deallocator(
                pointer,
                end - first,
                options,
                Some(&keep),
            )
        }?;
        let start = base + range.start - first;
        Some(Self { raw, start, bytes: range.len(), is_writable: false })
    }

    pub(crate) fn raw(&self) -> &ProtocolObject<dyn MTLBuffer> {
        &self.raw
    }

    /// Bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Place of byte `at` in Metal's buffer, if `bytes` bytes from there on are inside.
    pub(crate) fn offset(&self, at: u64, bytes: usize) -> Result<usize, DeviceError> {
        check_range(self.bytes(), at, bytes as u64)?;
        let at = usize::try_from(at).map_err(|_| DeviceError::Range(format!("byte {at}")))?;
        Ok(self.start + at)
    }

    /// Address of byte `at`, if `bytes` bytes from there on are inside.
    pub(crate) fn host(&self, at: u64, bytes: usize) -> Result<*mut u8, DeviceError> {
        let offset = self.offset(at, bytes)?;
        // SAFETY: the offset is inside the contents.
        Ok(unsafe { self.raw.contents().cast::<u8>().as_ptr().add(offset) })
    }

    /// An error if the memory is the host's.
    pub(crate) fn check_writable(&self) -> Result<(), DeviceError> {
        match self.is_writable {
            true => Ok(()),
            false => Err(DeviceError::Range("a buffer of the host's memory is read-only".to_owned())),
        }
    }
}
