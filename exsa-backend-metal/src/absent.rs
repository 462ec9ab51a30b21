//! In place of Metal on other systems: no devices, and types without values.

use exsa_core::backend::DeviceInfo;
use exsa_gpu::device::{Arg, Device, DeviceError, Devices, HostBytes, Limits, MemoryInfo, Stream};
use exsa_gpu::kernel::KernelSpec;
use std::ops::Range;
use std::sync::Arc;

/// The Apple GPUs of this machine: there are none on this system.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MetalDevices {}

impl MetalDevices {
    /// No device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

const REASON: &str = "Metal exists on macOS only";

impl Devices for MetalDevices {
    type Device = MetalDevice;

    fn name(&self) -> &'static str {
        "metal"
    }

    fn list(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }

    fn unavailable(&self) -> Option<String> {
        Some(REASON.to_owned())
    }

    fn open(&self, _: Option<&str>) -> Result<Arc<MetalDevice>, DeviceError> {
        Err(DeviceError::Unavailable(REASON.to_owned()))
    }
}

/// An Apple GPU.
#[derive(Clone, Copy, Debug)]
pub enum MetalDevice {}

/// Memory of an Apple GPU.
#[derive(Clone, Copy, Debug)]
pub enum MetalBuffer {}

/// A compiled kernel on an Apple GPU.
#[derive(Clone, Copy, Debug)]
pub enum MetalKernel {}

/// Commands for an Apple GPU.
#[derive(Clone, Copy, Debug)]
pub enum MetalStream {}

impl MetalDevice {
    /// The product's name.
    #[must_use]
    pub fn description(&self) -> String {
        match *self {}
    }
}

impl Device for MetalDevice {
    type Buffer = MetalBuffer;
    type Kernel = MetalKernel;
    type Stream = MetalStream;

    fn info(&self) -> DeviceInfo {
        match *self {}
    }

    fn limits(&self) -> Limits {
        match *self {}
    }

    fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        match *self {}
    }

    fn allocate(&self, _: u64) -> Result<MetalBuffer, DeviceError> {
        match *self {}
    }

    fn place(&self, _: &HostBytes, _: Range<usize>) -> Result<MetalBuffer, DeviceError> {
        match *self {}
    }

    fn kernel(&self, _: &KernelSpec) -> Result<MetalKernel, DeviceError> {
        match *self {}
    }

    fn stream(&self) -> Result<MetalStream, DeviceError> {
        match *self {}
    }
}

impl Stream for MetalStream {
    type Device = MetalDevice;

    fn write(&mut self, _: &MetalBuffer, _: u64, _: &[u8]) -> Result<(), DeviceError> {
        match *self {}
    }

    fn copy(&mut self, _: (&MetalBuffer, u64), _: (&MetalBuffer, u64), _: u64) -> Result<(), DeviceError> {
        match *self {}
    }

    fn launch(
        &mut self,
        _: &MetalKernel,
        _: [u32; 3],
        _: &[Arg<'_, MetalBuffer>],
    ) -> Result<(), DeviceError> {
        match *self {}
    }

    fn submit(&mut self) -> Result<(), DeviceError> {
        match *self {}
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        match *self {}
    }

    fn read(&mut self, _: &MetalBuffer, _: u64, _: &mut [u8]) -> Result<(), DeviceError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetalBackend;
    use exsa_core::backend::InferenceBackend;

    #[test]
    fn there_is_no_device_and_a_reason() {
        let devices = MetalDevices::new();
        assert!(devices.list().is_empty());
        assert_eq!(devices.unavailable().as_deref(), Some(REASON));
        assert!(matches!(devices.open(None), Err(DeviceError::Unavailable(reason)) if reason == REASON));
        let backend = MetalBackend::new(devices);
        assert_eq!(backend.name(), "metal");
        assert!(backend.devices().is_empty());
    }
}
