//! A context of the driver: what belongs to an opened device.

use crate::{driver, failure};
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute, CUresult};
use exsa_gpu::device::DeviceError;
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;

/// A context of its own for each opened device, so that an error that breaks it leaves other engines of the
/// process alone. Buffers, streams and kernels keep it alive.
#[derive(Debug)]
pub(crate) struct Context {
    raw: CUcontext,
    device: CUdevice,
    /// Why it is lost.
    lost: OnceLock<String>,
}

// SAFETY: contexts may be used from any thread, by several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// Makes a context the calling thread's own until it is dropped.
pub(crate) struct Current<'a>(PhantomData<(&'a Context, *const ())>);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut previous = ptr::null_mut();
        // SAFETY: the context was pushed on this thread, since the guard is not Send.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut previous) };
    }
}

impl Context {
    /// A context on the device with this index.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unavailable`] without a driver or such a device.
    pub fn new(index: i32) -> Result<Self, DeviceError> {
        driver::load().map_err(DeviceError::Unavailable)?;
        let fail = |result| failure::text(result).map_or(Ok(()), |text| Err(DeviceError::Unavailable(text)));
        let (mut device, mut raw) = (0, ptr::null_mut());
        // SAFETY: the number outlives the call.
        fail(unsafe { sys::cuDeviceGet(&mut device, index) })?;
        // SAFETY: the device is valid, the pointer outlives the call.
        fail(unsafe { sys::cuCtxCreate_v2(&mut raw, 0, device) })?;
        let mut created = ptr::null_mut();
        // SAFETY: creation made the context current; the thread gets back what it had.
        fail(unsafe { sys::cuCtxPopCurrent_v2(&mut created) })?;
        Ok(Self { raw, device, lost: OnceLock::new() })
    }

    /// Makes it current on this thread.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`].
    pub fn current(&self) -> Result<Current<'_>, DeviceError> {
        match self.lost.get() {
            Some(reason) => Err(DeviceError::Lost(reason.clone())),
            None => self.push(),
        }
    }

    /// Makes it current even if it is lost, to free what it has.
    pub fn push(&self) -> Result<Current<'_>, DeviceError> {
        // SAFETY: the context lives as long as `self`.
        self.check(unsafe { sys::cuCtxPushCurrent_v2(self.raw) }, "entering the context")?;
        Ok(Current(PhantomData))
    }

    /// The result of a call of the driver as an error. `doing` completes "while".
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`] if the context is unusable from now on, else [`DeviceError::Driver`].
    pub fn check(&self, result: CUresult, doing: &str) -> Result<(), DeviceError> {
        let Some(text) = failure::text(result) else { return Ok(()) };
        let text = format!("{text} while {doing}");
        if !failure::is_loss(result) {
            return Err(DeviceError::Driver(text));
        }
        Err(DeviceError::Lost(self.lost.get_or_init(|| text).clone()))
    }

    /// Waits for all streams.
    pub fn synchronize(&self, _current: &Current<'_>) -> Result<(), DeviceError> {
        // SAFETY: the context is current.
        self.check(unsafe { sys::cuCtxSynchronize() }, "waiting for the device")
    }

    /// Free and total bytes.
    pub fn memory(&self) -> Result<(u64, u64), DeviceError> {
        let _current = self.current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current, the numbers outlive the call.
        let result = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        self.check(result, "asking for free memory")?;
        Ok((free as u64, total as u64))
    }

    /// An attribute of the device.
    pub fn attribute(&self, attribute: CUdevice_attribute) -> Result<u32, DeviceError> {
        let mut value = 0;
        // SAFETY: the device is valid, the number outlives the call.
        let result = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.device) };
        self.check(result, "asking for an attribute")?;
        u32::try_from(value).map_err(|_| DeviceError::Driver(format!("attribute of {value}")))
    }

    /// Compute capability, `(9, 0)`.
    pub fn capability(&self) -> Result<(u32, u32), DeviceError> {
        use CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        Ok((self.attribute(MAJOR)?, self.attribute(MINOR)?))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing of the context is left: all that belongs to it keeps it alive.
        let _ = unsafe { sys::cuCtxDestroy_v2(self.raw) };
    }
}
