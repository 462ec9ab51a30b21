//! Memory of a device.

use crate::context::Context;
use cudarc::driver::sys::{self, CUdeviceptr, CUresult};
use exsa_gpu::device::DeviceError;
use std::sync::Arc;

/// Memory of an NVIDIA GPU.
#[derive(Debug)]
pub struct CudaBuffer {
    context: Arc<Context>,
    address: CUdeviceptr,
    bytes: u64,
}

impl CudaBuffer {
    /// Memory with undefined contents.
    pub(crate) fn new(context: &Arc<Context>, bytes: u64) -> Result<Self, DeviceError> {
        if bytes == 0 {
            return Err(DeviceError::Range("a buffer of 0 bytes".to_owned()));
        }
        let full = || {
            let free = context.memory().ok().map(|(free, _)| free);
            DeviceError::OutOfMemory { needed: bytes, free }
        };
        let size = usize::try_from(bytes).map_err(|_| full())?;
        let mut address = 0;
        let current = context.current()?;
        // SAFETY: the context is current, the address outlives the call.
        let result = unsafe { sys::cuMemAlloc_v2(&mut address, size) };
        drop(current);
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(full());
        }
        context.check(result, "allocating memory")?;
        Ok(Self { context: Arc::clone(context), address, bytes })
    }

    /// Address on the device.
    pub(crate) fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// Bytes.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it belongs to `context`.
    pub(crate) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        // Commands that use the memory may still run.
        if let Ok(current) = self.context.push() {
            let _ = self.context.synchronize(&current);
            // SAFETY: the context is current, the memory is this buffer's own, and no command uses it any
            // more.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}
