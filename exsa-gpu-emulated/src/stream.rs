//! Commands of the emulated device, which run at once.

use crate::buffer::EmulatedBuffer;
use crate::device::{EmulatedDevice, EmulatedKernel, check_bytes};
use exsa_gpu::device::{Arg, Device, DeviceError, Stream};
use std::ffi::c_void;

/// Commands of the emulated device.
#[derive(Debug)]
pub struct EmulatedStream {
    device: EmulatedDevice,
    /// The error of a launch: the stream ends with it.
    error: Option<DeviceError>,
}

impl EmulatedStream {
    pub(crate) fn new(device: EmulatedDevice) -> Self {
        Self { device, error: None }
    }

    /// The stream's error, if it has one.
    fn check(&self) -> Result<(), DeviceError> {
        self.error.clone().map_or_else(|| self.device.check(), Err)
    }
}

impl Stream for EmulatedStream {
    type Device = EmulatedDevice;

    fn write(&mut self, buffer: &EmulatedBuffer, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check()?;
        let at = check_bytes(buffer, at, bytes.len())?;
        let _lock = self.device.lock();
        // SAFETY: the range is inside the buffer, which nothing else accesses under the lock.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.start().as_ptr().add(at), bytes.len());
        }
        Ok(())
    }

    fn copy(
        &mut self,
        from: (&EmulatedBuffer, u64),
        to: (&EmulatedBuffer, u64),
        bytes: u64,
    ) -> Result<(), DeviceError> {
        self.check()?;
        let n = usize::try_from(bytes).map_err(|_| DeviceError::Range(format!("{bytes} bytes")))?;
        let (at, to_at) = (check_bytes(from.0, from.1, n)?, check_bytes(to.0, to.1, n)?);
        let _lock = self.device.lock();
        // SAFETY: both ranges are inside their buffers, which nothing else accesses under the lock.
        unsafe { std::ptr::copy(from.0.start().as_ptr().add(at), to.0.start().as_ptr().add(to_at), n) };
        Ok(())
    }

    fn launch(
        &mut self,
        kernel: &EmulatedKernel,
        grid: [u32; 3],
        args: &[Arg<'_, EmulatedBuffer>],
    ) -> Result<(), DeviceError> {
        self.check()?;
        let limits = self.device.limits();
        if grid.iter().zip(limits.grid_max).any(|(n, max)| *n > max) {
            let problem = format!("{}: grid {grid:?}, at most {:?}", kernel.name, limits.grid_max);
            return Err(DeviceError::Range(problem));
        }
        if args.len() != kernel.entry.arguments as usize {
            let problem = format!("{} arguments, {} expected", args.len(), kernel.entry.arguments);
            return Err(DeviceError::Kernel { name: kernel.name.clone(), problem });
        }
        if grid.contains(&0) {
            return Ok(());
        }
        // Buffers are passed as pointers, parameters as words, for their alignment.
        let mut pointers: Vec<*mut u8> = Vec::with_capacity(args.len());
        let mut words: Vec<Vec<u32>> = Vec::with_capacity(args.len());
        for arg in args {
            let (pointer, word) = match arg {
                Arg::Buffer(buffer, at) => {
                    if at % 4 != 0 {
                        return Err(DeviceError::Range(format!("{}: offset {at}", kernel.name)));
                    }
                    let at = check_bytes(buffer, *at, 0)?;
                    // SAFETY: the offset is inside the buffer.
                    (unsafe { buffer.start().as_ptr().add(at) }, Vec::new())
                }
                Arg::Params(bytes) => {
                    let word = |b: &[u8]| b.try_into().map(u32::from_ne_bytes).unwrap_or_default();
                    (std::ptr::null_mut(), bytes.chunks_exact(4).map(word).collect())
                }
            };
            pointers.push(pointer);
            words.push(word);
        }
        let addresses: Vec<*mut c_void> = pointers
            .iter_mut()
            .zip(&mut words)
            .map(|(pointer, words)| match words.is_empty() {
                true => std::ptr::from_mut(pointer).cast(),
                false => words.as_mut_ptr().cast(),
            })
            .collect();
        let launches = self.device.count();
        let options = *self.device.options();
        let seed = if options.seed == 0 { 0 } else { options.seed + 2 * launches };
        let _lock = self.device.lock();
        // SAFETY: an address for each argument; nothing else accesses the buffers under the lock.
        let result = unsafe { kernel.entry.launch(grid, seed, options.races, &addresses) };
        result.map_err(|problem| {
            let error = DeviceError::Driver(format!("kernel '{}': {problem}", kernel.name));
            self.error = Some(error.clone());
            error
        })
    }

    fn submit(&mut self) -> Result<(), DeviceError> {
        self.check()
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.check()
    }

    fn read(&mut self, buffer: &EmulatedBuffer, at: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.check()?;
        let at = check_bytes(buffer, at, out.len())?;
        let _lock = self.device.lock();
        // SAFETY: the range is inside the buffer, which nothing else accesses under the lock.
        unsafe {
            std::ptr::copy_nonoverlapping(buffer.start().as_ptr().add(at), out.as_mut_ptr(), out.len())
        };
        Ok(())
    }
}
