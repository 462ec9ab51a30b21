//! The emulated device as a backend lists it, and its options.

use crate::device::EmulatedDevice;
use crate::ffi;
use exsa_core::backend::{DeviceInfo, DeviceKind};
use exsa_gpu::device::{DeviceError, Devices};
use std::sync::Arc;

/// Name of the device.
pub(crate) const NAME: &str = "emulated:0";

/// Makes an emulated device.
#[derive(Clone, Copy, Debug)]
pub struct EmulatedDevices {
    pub(crate) seed: u64,
    pub(crate) races: bool,
    pub(crate) memory: u64,
    pub(crate) launches_max: Option<u64>,
    pub(crate) groups_wanted: u32,
}

impl Default for EmulatedDevices {
    fn default() -> Self {
        Self::new()
    }
}

impl EmulatedDevices {
    /// A device that runs threads in the order of their indices, with 4 GiB of memory.
    #[must_use]
    pub fn new() -> Self {
        Self { seed: 0, races: false, memory: 4 << 30, launches_max: None, groups_wanted: 4 }
    }

    /// Order of threads and threadgroups: 0 for that of their indices, odd numbers for random switches, even
    /// ones for random priorities.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether conflicting accesses to threadgroup memory are errors: some times slower.
    #[must_use]
    pub fn races(mut self, checked: bool) -> Self {
        self.races = checked;
        self
    }

    /// Memory in bytes, to test what happens past it.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Launches after which the device is lost.
    #[must_use]
    pub fn lost_after(mut self, launches: u64) -> Self {
        self.launches_max = Some(launches);
        self
    }

    /// Threadgroups that the device asks for:
    /// [`Limits::groups_wanted`](exsa_gpu::device::Limits::groups_wanted).
    #[must_use]
    pub fn groups_wanted(mut self, groups: u32) -> Self {
        self.groups_wanted = groups;
        self
    }
}

impl Devices for EmulatedDevices {
    type Device = EmulatedDevice;

    fn name(&self) -> &'static str {
        "emulated"
    }

    fn list(&self) -> Vec<DeviceInfo> {
        let device = || DeviceInfo::new(NAME, DeviceKind::Gpu).memory(Some(self.memory), Some(self.memory));
        if self.unavailable().is_none() { vec![device()] } else { Vec::new() }
    }

    fn unavailable(&self) -> Option<String> {
        ffi::UNAVAILABLE.map(str::to_owned)
    }

    fn open(&self, name: Option<&str>) -> Result<Arc<EmulatedDevice>, DeviceError> {
        if let Some(reason) = self.unavailable() {
            return Err(DeviceError::Unavailable(reason));
        }
        match name {
            None | Some(NAME) => Ok(Arc::new(EmulatedDevice::new(*self))),
            Some(name) => Err(DeviceError::Unavailable(format!("there is no device '{name}', only {NAME}"))),
        }
    }
}
