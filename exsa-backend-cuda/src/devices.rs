//! The NVIDIA GPUs of this machine.

use crate::cache::KernelCache;
use crate::device::CudaDevice;
use crate::{driver, failure};
use cudarc::driver::sys;
use exsa_core::backend::{DeviceInfo, DeviceKind};
use exsa_gpu::device::{DeviceError, Devices};
use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Arc;

/// Lists and opens the NVIDIA GPUs of this machine: `cuda:0`, `cuda:1` and so on, in the driver's order.
#[derive(Clone, Debug, Default)]
pub struct CudaDevices {
    cache: KernelCache,
}

impl CudaDevices {
    /// All NVIDIA GPUs. Compiled kernels are kept in the user's cache folder: `exsa/kernels` in
    /// `$XDG_CACHE_HOME`, `~/.cache`, or `%LOCALAPPDATA%`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps compiled kernels in `folder`, which is made when it is needed; `None` for nowhere. The folder
    /// must not be writable by others: the device runs what is in it.
    #[must_use]
    pub fn cache(mut self, folder: Option<PathBuf>) -> Self {
        self.cache = KernelCache::new(folder);
        self
    }

    /// Version of CUDA that the driver supports, `(12, 4)`; `None` without a driver.
    #[must_use]
    pub fn driver_version() -> Option<(u32, u32)> {
        driver::version()
    }

    /// The number of devices.
    fn count() -> Result<i32, String> {
        driver::load()?;
        let mut count = 0;
        // SAFETY: the driver is loaded, the number outlives the call.
        let result = unsafe { sys::cuDeviceGetCount(&mut count) };
        match failure::text(result) {
            Some(text) => Err(format!("the driver does not list its devices: {text}")),
            None if count < 1 => Err("NVIDIA's driver finds no GPU".to_owned()),
            None => Ok(count),
        }
    }
}

/// The product's name and total memory of a device.
fn describe(index: i32) -> Option<(String, u64)> {
    let (mut device, mut name, mut total) = (0, [0; 256], 0);
    // SAFETY: the driver is loaded, since there is an index; the number outlives the call.
    failure::text(unsafe { sys::cuDeviceGet(&mut device, index) }).map_or(Some(()), |_| None)?;
    let length = i32::try_from(name.len() - 1).ok()?;
    // SAFETY: the device is valid, and the name has one byte more than is told.
    failure::text(unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), length, device) })
        .map_or(Some(()), |_| None)?;
    // SAFETY: the device is valid, the number outlives the call.
    failure::text(unsafe { sys::cuDeviceTotalMem_v2(&mut total, device) }).map_or(Some(()), |_| None)?;
    // SAFETY: the last byte is zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some((name.to_string_lossy().into_owned(), total as u64))
}

/// Index of the device called `name`: `cuda:1`, or `cuda` for the first.
fn index_of(name: Option<&str>) -> Option<i32> {
    match name {
        None | Some("cuda") => Some(0),
        Some(name) => {
            name.strip_prefix("cuda:").filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
        }
    }
}

impl Devices for CudaDevices {
    type Device = CudaDevice;

    fn name(&self) -> &'static str {
        "cuda"
    }

    fn list(&self) -> Vec<DeviceInfo> {
        (0..Self::count().unwrap_or(0))
            .map(|index| {
                let total = describe(index).map(|(_, total)| total);
                DeviceInfo::new(format!("cuda:{index}"), DeviceKind::Gpu).memory(total, None)
            })
            .collect()
    }

    fn unavailable(&self) -> Option<String> {
        Self::count().err()
    }

    fn open(&self, name: Option<&str>) -> Result<Arc<CudaDevice>, DeviceError> {
        let count = Self::count().map_err(DeviceError::Unavailable)?;
        let index = index_of(name).filter(|index| *index < count).ok_or_else(|| {
            let name = name.unwrap_or_default();
            DeviceError::Unavailable(format!("no device '{name}': there are cuda:0 to cuda:{}", count - 1))
        })?;
        let model = describe(index).map_or_else(|| "NVIDIA GPU".to_owned(), |(name, _)| name);
        Ok(Arc::new(CudaDevice::open(index, format!("cuda:{index}"), model, self.cache.clone())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_indices() {
        assert_eq!(index_of(None), Some(0));
        assert_eq!(index_of(Some("cuda")), Some(0));
        assert_eq!(index_of(Some("cuda:12")), Some(12));
        for name in ["cuda:", "cuda:-1", "cuda:+1", "cuda:99999999999", "cpu", "metal", ""] {
            assert_eq!(index_of(Some(name)), None, "{name}");
        }
    }
}
