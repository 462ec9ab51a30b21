//! Commands of a queue of Metal.

use crate::buffer::MetalBuffer;
use crate::device::{MetalDevice, MetalKernel};
use crate::failure;
use exsa_gpu::device::{Arg, DeviceError, Stream};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue,
    MTLComputeCommandEncoder, MTLDevice, MTLSize,
};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

/// Threadgroups of a launch.
const GRID_MAX: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

/// Bytes of parameters at most.
const PARAMS_MAX: usize = 4096;

/// Arguments at most.
const ARGUMENTS_MAX: usize = 31;

/// Copies by Metal begin at multiples of so many bytes, and have as many.
const COPY_MULTIPLE: usize = 4;

type Commands = Retained<ProtocolObject<dyn MTLCommandBuffer>>;
type Compute = Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>;

/// Commands for an Apple GPU, in their order.
#[derive(Debug)]
pub struct MetalStream {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    /// Commands that were not handed over yet, and their open encoder.
    open: Option<Commands>,
    compute: Option<Compute>,
    /// Command buffers that were handed over and not waited for.
    running: Vec<Commands>,
    lost: Arc<OnceLock<String>>,
}

// SAFETY: queues, command buffers and encoders may be used from any thread, one at a time.
unsafe impl Send for MetalStream {}

impl MetalStream {
    pub(crate) fn new(
        device: Retained<ProtocolObject<dyn MTLDevice>>,
        queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
        lost: Arc<OnceLock<String>>,
    ) -> Self {
        Self { device, queue, open: None, compute: None, running: Vec::new(), lost }
    }

    fn check(&self) -> Result<(), DeviceError> {
        self.lost.get().map_or(Ok(()), |reason| Err(DeviceError::Lost(reason.clone())))
    }

    /// Whether no command was given since the last wait.
    fn is_idle(&self) -> bool {
        self.open.is_none() && self.running.is_empty()
    }

    /// The open command buffer.
    fn commands(&mut self) -> Result<Commands, DeviceError> {
        if self.open.is_none() {
            let commands = self.queue.commandBuffer();
            self.open = Some(commands.ok_or_else(|| refused("command buffers"))?);
        }
        self.open.clone().ok_or_else(|| refused("command buffers"))
    }

    /// The open encoder of launches. Its launches run one after another.
    fn compute(&mut self) -> Result<Compute, DeviceError> {
        if self.compute.is_none() {
            let encoder = self.commands()?.computeCommandEncoder();
            self.compute = Some(encoder.ok_or_else(|| refused("encoders"))?);
        }
        self.compute.clone().ok_or_else(|| refused("encoders"))
    }

    fn end_compute(&mut self) {
        if let Some(encoder) = self.compute.take() {
            encoder.endEncoding();
        }
    }

    /// A copy by the device. Offsets are in Metal's buffers, inside, and multiples of [`COPY_MULTIPLE`].
    fn device_copy(
        &mut self,
        from: (&MetalBuffer, usize),
        to: (&MetalBuffer, usize),
        bytes: usize,
    ) -> Result<(), DeviceError> {
        self.end_compute();
        let encoder = self.commands()?.blitCommandEncoder().ok_or_else(|| refused("encoders"))?;
        // SAFETY: both ranges are inside their buffers.
        unsafe {
            encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                from.0.raw(),
                from.1,
                to.0.raw(),
                to.1,
                bytes,
            );
        }
        encoder.endEncoding();
        Ok(())
    }

    /// Hands the open commands over.
    fn commit(&mut self) {
        self.end_compute();
        if let Some(commands) = self.open.take() {
            commands.commit();
            self.running.push(commands);
        }
    }

    /// Waits for all commands; the first error of one.
    fn wait(&mut self) -> Result<(), DeviceError> {
        self.commit();
        let mut result = Ok(());
        for commands in self.running.drain(..) {
            commands.waitUntilCompleted();
            if commands.status() == MTLCommandBufferStatus::Error && result.is_ok() {
                result = Err(failure::of_commands(commands.error().as_deref()));
            }
        }
        if let Err(DeviceError::Lost(reason)) = &result {
            self.lost.get_or_init(|| reason.clone());
        }
        result
    }
}

fn refused(objects: &str) -> DeviceError {
    DeviceError::Driver(format!("Metal makes no more {objects}"))
}

impl Stream for MetalStream {
    type Device = MetalDevice;

    fn write(&mut self, buffer: &MetalBuffer, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check()?;
        buffer.check_writable()?;
        let offset = buffer.offset(at, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        autoreleasepool(|_| {
            let is_even = offset % COPY_MULTIPLE == 0 && bytes.len() % COPY_MULTIPLE == 0;
            if !self.is_idle() && is_even {
                // Earlier commands may still read the buffer.
                let staging = MetalBuffer::copied(&self.device, bytes);
                let staging =
                    staging.ok_or(DeviceError::OutOfMemory { needed: bytes.len() as u64, free: None })?;
                return self.device_copy((&staging, 0), (buffer, offset), bytes.len());
            }
            self.wait()?;
            let to = buffer.host(at, bytes.len())?;
            // SAFETY: the range is inside the buffer, which no command of this stream uses now; streams do
            // not write what others use.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
            Ok(())
        })
    }

    fn copy(
        &mut self,
        from: (&MetalBuffer, u64),
        to: (&MetalBuffer, u64),
        bytes: u64,
    ) -> Result<(), DeviceError> {
        self.check()?;
        to.0.check_writable()?;
        let n = usize::try_from(bytes).map_err(|_| DeviceError::Range(format!("{bytes} bytes")))?;
        let offsets = (from.0.offset(from.1, n)?, to.0.offset(to.1, n)?);
        if n == 0 {
            return Ok(());
        }
        autoreleasepool(|_| {
            if [offsets.0, offsets.1, n].into_iter().all(|n| n % COPY_MULTIPLE == 0) {
                return self.device_copy((from.0, offsets.0), (to.0, offsets.1), n);
            }
            self.wait()?;
            let (from, to) = (from.0.host(from.1, n)?, to.0.host(to.1, n)?);
            // SAFETY: both ranges are inside their buffers, which no command of this stream uses now.
            unsafe { std::ptr::copy(from, to, n) };
            Ok(())
        })
    }

    fn launch(
        &mut self,
        kernel: &MetalKernel,
        grid: [u32; 3],
        args: &[Arg<'_, MetalBuffer>],
    ) -> Result<(), DeviceError> {
        self.check()?;
        let out_of_range = |problem: String| DeviceError::Range(format!("{}: {problem}", kernel.name()));
        if grid.iter().zip(GRID_MAX).any(|(n, max)| *n > max) {
            return Err(out_of_range(format!("grid {grid:?}, at most {GRID_MAX:?}")));
        }
        if args.len() > ARGUMENTS_MAX {
            return Err(out_of_range(format!("{} arguments, at most {ARGUMENTS_MAX}", args.len())));
        }
        for arg in args {
            match arg {
                Arg::Buffer(buffer, at) => {
                    buffer.offset(*at, 0)?;
                    if at % 4 != 0 {
                        return Err(out_of_range(format!("offset {at}")));
                    }
                }
                Arg::Params(bytes) if bytes.is_empty() || bytes.len() > PARAMS_MAX => {
                    return Err(out_of_range(format!("parameters of {} bytes", bytes.len())));
                }
                Arg::Params(_) => {}
            }
        }
        if grid.contains(&0) {
            return Ok(());
        }
        autoreleasepool(|_| {
            let encoder = self.compute()?;
            encoder.setComputePipelineState(kernel.state());
            for (index, arg) in args.iter().enumerate() {
                match arg {
                    Arg::Buffer(buffer, at) => {
                        let offset = buffer.offset(*at, 0)?;
                        // SAFETY: the offset is inside the buffer, the index below Metal's limit.
                        unsafe { encoder.setBuffer_offset_atIndex(Some(buffer.raw()), offset, index) };
                    }
                    Arg::Params(bytes) => {
                        let pointer = NonNull::from(*bytes).cast::<c_void>();
                        // SAFETY: the pointer is valid for as many bytes, which the call copies.
                        unsafe { encoder.setBytes_length_atIndex(pointer, bytes.len(), index) };
                    }
                }
            }
            let [width, height, depth] = grid.map(|n| n as usize);
            let threads = MTLSize { width: kernel.threads() as usize, height: 1, depth: 1 };
            encoder.dispatchThreadgroups_threadsPerThreadgroup(MTLSize { width, height, depth }, threads);
            Ok(())
        })
    }

    fn submit(&mut self) -> Result<(), DeviceError> {
        self.check()?;
        autoreleasepool(|_| self.commit());
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.check()?;
        autoreleasepool(|_| self.wait())
    }

    fn read(&mut self, buffer: &MetalBuffer, at: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.synchronize()?;
        let from = buffer.host(at, out.len())?;
        // SAFETY: the range is inside the buffer, which no command of this stream uses now.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }
}

impl Drop for MetalStream {
    fn drop(&mut self) {
        // An encoder must end before it is released; what it has is not run.
        self.end_compute();
    }
}
