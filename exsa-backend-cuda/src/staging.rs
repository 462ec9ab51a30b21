//! Host memory that the device copies from and to.

use crate::context::Context;
use cudarc::driver::sys::{self, CUresult};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

/// Page-locked host memory, or ordinary memory where the system gives no such: copies are then slower.
#[derive(Debug)]
pub(crate) struct Staging {
    context: Arc<Context>,
    start: NonNull<u8>,
    bytes: usize,
    is_locked: bool,
}

// SAFETY: the memory is this value's own.
unsafe impl Send for Staging {}

impl Staging {
    /// `bytes` bytes, more than 0.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Self {
        let context = Arc::clone(context);
        if let Some(start) = locked(&context, bytes) {
            return Self { context, start, bytes, is_locked: true };
        }
        log::warn!("no page-locked memory: copies to and from the GPU are slower");
        let memory: &'static mut [u8] = Box::leak(vec![0; bytes].into_boxed_slice());
        Self { context, start: NonNull::from(memory).cast(), bytes, is_locked: false }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes. No command that writes them is running, and the caller writes none that a running command
    /// reads.
    pub fn slice(&mut self) -> &mut [u8] {
        // SAFETY: the memory is of this size, initialized, and this value's own.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// Address of byte `at`, which is inside.
    pub fn address(&mut self, at: usize) -> *mut c_void {
        self.slice()[at..].as_mut_ptr().cast()
    }
}

/// Page-locked memory, all zero.
fn locked(context: &Context, bytes: usize) -> Option<NonNull<u8>> {
    let _current = context.current().ok()?;
    let mut start = std::ptr::null_mut();
    // SAFETY: the context is current, the pointer outlives the call.
    let result = unsafe { sys::cuMemHostAlloc(&mut start, bytes, 0) };
    let start = NonNull::new(start.cast::<u8>()).filter(|_| result == CUresult::CUDA_SUCCESS)?;
    // SAFETY: the memory has as many bytes.
    unsafe { start.as_ptr().write_bytes(0, bytes) };
    Some(start)
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_locked {
            let memory = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.bytes);
            // SAFETY: the memory is the box that `new` leaked, and nothing uses it any more.
            drop(unsafe { Box::from_raw(memory) });
        } else if let Ok(_current) = self.context.push() {
            // SAFETY: the memory is of cuMemHostAlloc, and the stream that used it has been waited for.
            let _ = unsafe { sys::cuMemFreeHost(self.start.as_ptr().cast()) };
        }
    }
}
