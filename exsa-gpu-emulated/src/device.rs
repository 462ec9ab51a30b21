//! The emulated device.

use crate::buffer::EmulatedBuffer;
use crate::devices::{EmulatedDevices, NAME};
use crate::ffi::Entry;
use crate::stream::EmulatedStream;
use exsa_core::backend::{DeviceInfo, DeviceKind};
use exsa_gpu::device::{Device, DeviceError, HostBytes, Limits, MemoryInfo, check_range};
use exsa_gpu::kernel::KernelSpec;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device whose kernels run on the calling thread, one command at a time.
#[derive(Clone, Debug)]
pub struct EmulatedDevice {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: EmulatedDevices,
    used: Arc<AtomicU64>,
    launches: AtomicU64,
    /// Held while a command accesses buffers.
    running: Mutex<()>,
}

/// A kernel of the emulator.
#[derive(Clone, Debug)]
pub struct EmulatedKernel {
    pub(crate) entry: Entry,
    pub(crate) name: String,
}

impl EmulatedDevice {
    pub(crate) fn new(options: EmulatedDevices) -> Self {
        let shared =
            Shared { options, used: Arc::default(), launches: AtomicU64::new(0), running: Mutex::new(()) };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn options(&self) -> &EmulatedDevices {
        &self.shared.options
    }

    /// The right to access buffers.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of launches so far.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.shared.launches.load(Ordering::Relaxed)
    }

    /// Counts a launch.
    pub(crate) fn count(&self) -> u64 {
        self.shared.launches.fetch_add(1, Ordering::Relaxed)
    }

    /// An error if the device is lost.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        match self.options().launches_max {
            Some(max) if self.launches() >= max => {
                Err(DeviceError::Lost(format!("it was to be lost after {max} launches")))
            }
            _ => Ok(()),
        }
    }

    /// The kernel called `name`, of those that no module lists too.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Kernel`] if there is none.
    pub fn kernel_named(&self, name: &str) -> Result<EmulatedKernel, DeviceError> {
        let entry = Entry::find(name).ok_or_else(|| DeviceError::Kernel {
            name: name.to_owned(),
            problem: "the emulator has no such kernel".to_owned(),
        })?;
        Ok(EmulatedKernel { entry, name: name.to_owned() })
    }
}

impl Device for EmulatedDevice {
    type Buffer = EmulatedBuffer;
    type Kernel = EmulatedKernel;
    type Stream = EmulatedStream;

    fn info(&self) -> DeviceInfo {
        let EmulatedDevices { memory, .. } = *self.options();
        let free = memory - self.shared.used.load(Ordering::Relaxed);
        DeviceInfo::new(NAME, DeviceKind::Gpu).memory(Some(memory), Some(free))
    }

    fn limits(&self) -> Limits {
        Limits {
            grid_max: [u32::MAX >> 1, 65_535, 65_535],
            buffer_max: self.options().memory,
            groups_wanted: self.options().groups_wanted,
        }
    }

    fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        self.check()?;
        let total = self.options().memory;
        Ok(MemoryInfo { total, free: total - self.shared.used.load(Ordering::Relaxed) })
    }

    fn allocate(&self, bytes: u64) -> Result<EmulatedBuffer, DeviceError> {
        self.check()?;
        EmulatedBuffer::new(bytes, &self.shared.used, self.options().memory)
    }

    fn place(&self, memory: &HostBytes, range: Range<usize>) -> Result<EmulatedBuffer, DeviceError> {
        let bytes = (**memory).as_ref();
        let Some(bytes) = bytes.get(range.clone()) else {
            return Err(DeviceError::Range(format!("bytes {range:?} of {}", bytes.len())));
        };
        let buffer = self.allocate(bytes.len() as u64)?;
        let _lock = self.lock();
        // SAFETY: the new buffer has as many bytes, and does not overlap them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.start().as_ptr(), bytes.len()) };
        Ok(buffer)
    }

    fn kernel(&self, spec: &KernelSpec) -> Result<EmulatedKernel, DeviceError> {
        self.check()?;
        let kernel = self.kernel_named(&spec.name)?;
        if kernel.entry.threads != spec.threads {
            let problem = format!("{} threads expected, {} found", spec.threads, kernel.entry.threads);
            return Err(DeviceError::Kernel { name: spec.name.clone(), problem });
        }
        Ok(kernel)
    }

    fn stream(&self) -> Result<EmulatedStream, DeviceError> {
        self.check()?;
        Ok(EmulatedStream::new(self.clone()))
    }
}

/// Checks a range of a buffer.
pub(crate) fn check_bytes(buffer: &EmulatedBuffer, at: u64, bytes: usize) -> Result<usize, DeviceError> {
    check_range(buffer.len(), at, bytes as u64)?;
    usize::try_from(at).map_err(|_| DeviceError::Range(format!("byte {at}")))
}
