//! Interface between the executor and a GPU's driver: memory, kernels, and streams of commands.
//!
//! # Contract
//!
//! - A [`Stream`] runs its commands in the order in which they were given, each as if the one before had
//!   ended: a kernel sees all that earlier commands of the stream wrote. Streams are not ordered with each
//!   other; memory that several of them use is read-only while they run (weights).
//! - Commands may run late. Their errors appear at the latest in [`Stream::synchronize`], which any method
//!   that waits calls first; after an error the contents of the buffers that the stream wrote are undefined.
//! - A device that is lost answers [`DeviceError::Lost`] from then on, to every call. The process lives.
//! - Buffers may be dropped as soon as the commands that use them were given: the device keeps their memory
//!   until these have run.
//! - No method panics, whatever the sizes.

use crate::kernel::{KernelSpec, Module};
use exsa_core::backend::DeviceInfo;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Bytes in host memory that outlive the buffers made of them, such as a mapped file.
pub type HostBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The devices of one kind that this machine has: what a backend is made from.
pub trait Devices: Send + Sync + 'static {
    /// One of them.
    type Device: Device;

    /// Short name of the backend for user input: `cuda`, `metal`.
    fn name(&self) -> &'static str;

    /// The devices, the preferred one first; empty if there is none, [`unavailable`](Self::unavailable) says
    /// why.
    fn list(&self) -> Vec<DeviceInfo>;

    /// Reason for an empty list: no driver, no device, another system.
    fn unavailable(&self) -> Option<String>;

    /// Opens the device called `name`, or the preferred one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unavailable`] if there is no such device, or it cannot be opened.
    fn open(&self, name: Option<&str>) -> Result<Arc<Self::Device>, DeviceError>;
}

/// A GPU, or an emulated one. Its memory and compiled kernels are shared by all streams.
pub trait Device: Debug + Send + Sync + Sized + 'static {
    /// Memory on the device, freed when it is dropped.
    type Buffer: Debug + Send + Sync;
    /// A compiled kernel.
    type Kernel: Clone + Debug + Send + Sync;
    /// A sequence of commands.
    type Stream: Stream<Device = Self>;

    /// Name, kind and memory.
    fn info(&self) -> DeviceInfo;

    /// Limits of launches and allocations.
    fn limits(&self) -> Limits;

    /// Memory in bytes.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`], or the driver's error.
    fn memory(&self) -> Result<MemoryInfo, DeviceError>;

    /// Allocates `bytes` bytes, more than 0, all zero, aligned to at least 256 bytes.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`]; the device stays usable.
    fn allocate(&self, bytes: u64) -> Result<Self::Buffer, DeviceError>;

    /// Puts `memory[range]` on the device, ready for every stream when the call returns. Whoever passes
    /// `memory` keeps its bytes as they are for the life of the buffer: a device of unified memory reads them
    /// in place. Kernels load values of up to 4 bytes from it, so the range starts at a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`]; [`DeviceError::Range`] for a range outside `memory`.
    fn place(&self, memory: &HostBytes, range: Range<usize>) -> Result<Self::Buffer, DeviceError>;

    /// The compiled kernel of `spec`. The device compiles its module at the first call and keeps it
    /// ([`Module::source`]); the source is the device's dialect.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Compile`] with the compiler's log; [`DeviceError::Kernel`] if the module lacks the name
    /// or the device cannot run that many threads.
    fn kernel(&self, spec: &KernelSpec) -> Result<Self::Kernel, DeviceError>;

    /// A new stream.
    ///
    /// # Errors
    ///
    /// The driver's.
    fn stream(&self) -> Result<Self::Stream, DeviceError>;
}

/// A sequence of commands for one device, used by one thread at a time.
pub trait Stream: Debug + Send {
    /// The device.
    type Device: Device;

    /// Writes `bytes` to `buffer` from byte `at` on. `bytes` may change once the call returned.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Range`] past the buffer's end; the driver's.
    fn write(&mut self, buffer: &Buffer<Self>, at: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies `bytes` bytes between buffers, or between parts of one that do not overlap.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Range`] past a buffer's end; the driver's.
    fn copy(
        &mut self,
        from: (&Buffer<Self>, u64),
        to: (&Buffer<Self>, u64),
        bytes: u64,
    ) -> Result<(), DeviceError>;

    /// Launches a kernel over `grid` threadgroups of its own number of threads. `args` are the kernel's
    /// arguments in order. A grid with a zero does nothing.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Range`] for a grid beyond [`Limits::grid_max`] or an offset past a buffer's end; the
    /// driver's.
    fn launch(
        &mut self,
        kernel: &<Self::Device as Device>::Kernel,
        grid: [u32; 3],
        args: &[Arg<'_, Buffer<Self>>],
    ) -> Result<(), DeviceError>;

    /// Hands the commands so far to the device, without waiting for them.
    ///
    /// # Errors
    ///
    /// The driver's.
    fn submit(&mut self) -> Result<(), DeviceError>;

    /// Waits until all commands have run.
    ///
    /// # Errors
    ///
    /// The first error of a command; [`DeviceError::Lost`].
    fn synchronize(&mut self) -> Result<(), DeviceError>;

    /// Waits until all commands have run, and reads from byte `at` of `buffer` on.
    ///
    /// # Errors
    ///
    /// Those of [`synchronize`](Self::synchronize); [`DeviceError::Range`] past the buffer's end.
    fn read(&mut self, buffer: &Buffer<Self>, at: u64, out: &mut [u8]) -> Result<(), DeviceError>;
}

/// The buffers of a stream's device.
pub type Buffer<S> = <<S as Stream>::Device as Device>::Buffer;

/// An argument of a kernel.
#[derive(Debug)]
pub enum Arg<'a, B> {
    /// Memory from byte `at` of a buffer on, `at` being a multiple of 4. Metal: `setBuffer`; CUDA: the
    /// address.
    Buffer(&'a B, u64),
    /// A `#[repr(C)]` struct of up to 4 KiB, by value. Metal: `setBytes`; CUDA: a pointer to the bytes.
    Params(&'a [u8]),
}

/// Memory of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that can be allocated.
    pub free: u64,
}

/// Limits of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threadgroups of a launch in x, y and z. Kernels rely on 65,535 in y and z.
    pub grid_max: [u32; 3],
    /// Bytes of a buffer.
    pub buffer_max: u64,
    /// Threadgroups that keep the device busy: kernels that can be split are split until there are about so
    /// many.
    pub groups_wanted: u32,
}

/// Why a device could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no such device, no driver, or it cannot be opened.
    #[error("no GPU: {0}")]
    Unavailable(String),
    /// The device has no room.
    #[error("out of device memory: {needed} bytes needed{}", free_text(*.free))]
    OutOfMemory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes free, where known.
        free: Option<u64>,
    },
    /// The device is gone or its context is broken; nothing on it can be used any more.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// A module does not compile.
    #[error("kernels '{}' do not compile: {log}", module.name())]
    Compile {
        /// The module.
        module: Module,
        /// The compiler's messages.
        log: String,
    },
    /// A kernel is not in its module, or the device cannot run it.
    #[error("kernel '{name}': {problem}")]
    Kernel {
        /// Its name.
        name: String,
        /// The problem.
        problem: String,
    },
    /// A command is outside of a buffer or of the device's limits.
    #[error("command out of range: {0}")]
    Range(String),
    /// Another error of the driver.
    #[error("{0}")]
    Driver(String),
}

fn free_text(free: Option<u64>) -> String {
    free.map_or_else(String::new, |free| format!(", {free} free"))
}

/// Checks that `bytes` bytes from `at` on lie in a buffer of `len` bytes.
///
/// # Errors
///
/// [`DeviceError::Range`] with the numbers.
pub fn check_range(len: u64, at: u64, bytes: u64) -> Result<(), DeviceError> {
    match at.checked_add(bytes) {
        Some(end) if end <= len => Ok(()),
        _ => Err(DeviceError::Range(format!("{bytes} bytes from byte {at} on, in a buffer of {len} bytes"))),
    }
}
