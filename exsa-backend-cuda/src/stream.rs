//! Commands of a stream of the driver.

use crate::buffer::CudaBuffer;
use crate::context::Context;
use crate::device::{CudaDevice, CudaKernel, GRID_MAX};
use crate::staging::Staging;
use cudarc::driver::sys::{self, CUdeviceptr, CUstream, CUstream_flags};
use exsa_gpu::device::{Arg, DeviceError, Stream, check_range};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// Host memory of a stream for copies to and from the device.
const STAGING_BYTES: usize = 8 << 20;

/// Arguments of a kernel at most, and bytes of one. The kernels have at most 31 arguments, which is Metal's
/// limit, and parameters of fewer bytes; the driver reads as many as a kernel declares, whatever the caller
/// gave.
const ARGUMENTS_MAX: usize = 32;
const PARAMS_MAX: usize = 256;

/// Commands for an NVIDIA GPU, in their order.
#[derive(Debug)]
pub struct CudaStream {
    context: Arc<Context>,
    raw: CUstream,
    staging: Staging,
    /// Bytes of the staging memory that commands still read.
    used: usize,
}

// SAFETY: streams may be used from any thread, and this one is used by one at a time.
unsafe impl Send for CudaStream {}

impl CudaStream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let staging = Staging::new(context, STAGING_BYTES);
        let current = context.current()?;
        let mut raw = ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current, the pointer outlives the call.
        context.check(unsafe { sys::cuStreamCreate(&mut raw, flags) }, "making a stream")?;
        drop(current);
        Ok(Self { context: Arc::clone(context), raw, staging, used: 0 })
    }

    /// Sets all bytes of `buffer` to zero, and waits.
    pub(crate) fn clear(&mut self, buffer: &CudaBuffer) -> Result<(), DeviceError> {
        let bytes = usize::try_from(buffer.bytes()).unwrap_or(usize::MAX);
        let current = self.context.current()?;
        // SAFETY: the context is current, the buffer has as many bytes.
        let result = unsafe { sys::cuMemsetD8Async(buffer.address(), 0, bytes, self.raw) };
        drop(current);
        self.context.check(result, "clearing memory")?;
        self.synchronize()
    }

    /// Copies `bytes` to `address`, a part of the staging memory at a time.
    ///
    /// # Safety
    ///
    /// As many bytes from `address` on are of a buffer of the context, which outlives the commands.
    pub(crate) unsafe fn upload(&mut self, address: CUdeviceptr, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut done = 0;
        while done < bytes.len() {
            if self.used == self.staging.bytes() {
                self.synchronize()?;
            }
            let n = (bytes.len() - done).min(self.staging.bytes() - self.used);
            self.staging.slice()[self.used..self.used + n].copy_from_slice(&bytes[done..done + n]);
            let from = self.staging.address(self.used);
            let current = self.context.current()?;
            // SAFETY: the context is current; the caller vouches for the address, and the staging memory is
            // not written again before the stream has been waited for.
            let result = unsafe { sys::cuMemcpyHtoDAsync_v2(address + done as u64, from, n, self.raw) };
            drop(current);
            self.context.check(result, "copying to the device")?;
            self.used += n;
            done += n;
        }
        Ok(())
    }

    /// An error for a buffer of another device.
    fn own(&self, buffer: &CudaBuffer) -> Result<(), DeviceError> {
        match buffer.is_of(&self.context) {
            true => Ok(()),
            false => Err(DeviceError::Range("a buffer of another device".to_owned())),
        }
    }
}

impl Stream for CudaStream {
    type Device = CudaDevice;

    fn write(&mut self, buffer: &CudaBuffer, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.own(buffer)?;
        check_range(buffer.bytes(), at, bytes.len() as u64)?;
        // SAFETY: the range is inside the buffer, whose memory is freed only once the device is idle.
        unsafe { self.upload(buffer.address() + at, bytes) }
    }

    fn copy(
        &mut self,
        from: (&CudaBuffer, u64),
        to: (&CudaBuffer, u64),
        bytes: u64,
    ) -> Result<(), DeviceError> {
        for (buffer, at) in [from, to] {
            self.own(buffer)?;
            check_range(buffer.bytes(), at, bytes)?;
        }
        let n = usize::try_from(bytes).map_err(|_| DeviceError::Range(format!("{bytes} bytes")))?;
        let _current = self.context.current()?;
        let (from, to) = (from.0.address() + from.1, to.0.address() + to.1);
        // SAFETY: the context is current, both ranges are inside their buffers.
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, n, self.raw) };
        self.context.check(result, "copying on the device")
    }

    fn launch(
        &mut self,
        kernel: &CudaKernel,
        grid: [u32; 3],
        args: &[Arg<'_, CudaBuffer>],
    ) -> Result<(), DeviceError> {
        if grid.iter().zip(GRID_MAX).any(|(n, max)| *n > max) {
            let problem = format!("{}: grid {grid:?}, at most {GRID_MAX:?}", kernel.name());
            return Err(DeviceError::Range(problem));
        }
        if !kernel.is_of(&self.context) {
            return Err(DeviceError::Range(format!("{}: a kernel of another device", kernel.name())));
        }
        // Values of the arguments, in words of 8 bytes for their alignment: parameters, zeros in place of
        // arguments that were not given, and addresses. Behind each address there are as many bytes as any
        // argument can have.
        let (mut values, mut absent) = ([0_u64; PARAMS_MAX / 8], [0_u64; PARAMS_MAX / 8]);
        let mut addresses = [0_u64; ARGUMENTS_MAX + PARAMS_MAX / 8];
        let mut params = None;
        if args.len() > ARGUMENTS_MAX {
            return Err(DeviceError::Range(format!("{}: {} arguments", kernel.name(), args.len())));
        }
        for (i, arg) in args.iter().enumerate() {
            match arg {
                Arg::Buffer(buffer, at) => {
                    self.own(buffer)?;
                    check_range(buffer.bytes(), *at, 0)?;
                    if at % 4 != 0 {
                        return Err(DeviceError::Range(format!("{}: offset {at}", kernel.name())));
                    }
                    addresses[i] = buffer.address() + at;
                }
                Arg::Params(bytes) => {
                    if bytes.len() > PARAMS_MAX || params.replace(i).is_some() {
                        let problem = format!("{}: parameters of {} bytes", kernel.name(), bytes.len());
                        return Err(DeviceError::Range(problem));
                    }
                    for (word, bytes) in values.iter_mut().zip(bytes.chunks(8)) {
                        let mut padded = [0; 8];
                        padded[..bytes.len()].copy_from_slice(bytes);
                        *word = u64::from_ne_bytes(padded);
                    }
                }
            }
        }
        if grid.contains(&0) {
            return Ok(());
        }
        let mut pointers: [*mut c_void; ARGUMENTS_MAX] = [absent.as_mut_ptr().cast(); ARGUMENTS_MAX];
        for (i, pointer) in pointers.iter_mut().enumerate().take(args.len()) {
            *pointer = match params == Some(i) {
                true => values.as_mut_ptr().cast(),
                false => addresses.as_mut_ptr().wrapping_add(i).cast(),
            };
        }
        let _current = self.context.current()?;
        // SAFETY: the context is current. The driver copies the arguments before it returns: there is a
        // pointer for each that a kernel can have, to as many bytes as one can have.
        let result = unsafe {
            sys::cuLaunchKernel(
                kernel.function(),
                grid[0],
                grid[1],
                grid[2],
                kernel.threads(),
                1,
                1,
                0,
                self.raw,
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        self.context.check(result, &format!("launching kernel '{}'", kernel.name()))
    }

    fn submit(&mut self) -> Result<(), DeviceError> {
        // Commands are on their way already, except on Windows, where a query sends them.
        let _current = self.context.current()?;
        // SAFETY: the context is current, the stream is its own.
        match unsafe { sys::cuStreamQuery(self.raw) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(()),
            result => self.context.check(result, "running commands"),
        }
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        let _current = self.context.current()?;
        // SAFETY: the context is current, the stream is its own.
        self.context.check(unsafe { sys::cuStreamSynchronize(self.raw) }, "waiting for commands")?;
        self.used = 0;
        Ok(())
    }

    fn read(&mut self, buffer: &CudaBuffer, at: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.own(buffer)?;
        check_range(buffer.bytes(), at, out.len() as u64)?;
        if out.is_empty() {
            return self.synchronize();
        }
        let (mut from, part) = (buffer.address() + at, self.staging.bytes());
        for out in out.chunks_mut(part) {
            // Copies to the device that still read the staging memory run before this one writes it.
            let to = self.staging.address(0);
            let current = self.context.current()?;
            // SAFETY: the context is current, the range is inside the buffer, the staging memory is large
            // enough.
            let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, out.len(), self.raw) };
            drop(current);
            self.context.check(result, "copying from the device")?;
            self.synchronize()?;
            out.copy_from_slice(&self.staging.slice()[..out.len()]);
            from += out.len() as u64;
        }
        Ok(())
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.push() {
            // Commands still use the staging memory.
            // SAFETY: the context is current, the stream is this value's own.
            let _ = unsafe { sys::cuStreamSynchronize(self.raw) };
            // SAFETY: as above; it is not used again.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}
