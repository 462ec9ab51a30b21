//! The Apple GPUs of this machine.

use crate::device::MetalDevice;
use exsa_core::backend::{DeviceInfo, DeviceKind};
use exsa_gpu::device::{DeviceError, Devices};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLCopyAllDevices, MTLCreateSystemDefaultDevice, MTLDevice};
use std::sync::Arc;

type RawDevice = Retained<ProtocolObject<dyn MTLDevice>>;

/// Lists and opens the GPUs of this machine: `metal:0`, the system's preferred one, and so on.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MetalDevices {}

impl MetalDevices {
    /// All GPUs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The devices, the system's preferred one first.
fn devices() -> Vec<RawDevice> {
    autoreleasepool(|_| {
        let Some(first) = MTLCreateSystemDefaultDevice() else { return Vec::new() };
        let id = first.registryID();
        let others = MTLCopyAllDevices();
        let others = others.iter().filter(|device| device.registryID() != id);
        [first].into_iter().chain(others).collect()
    })
}

fn info(index: usize, device: &ProtocolObject<dyn MTLDevice>) -> DeviceInfo {
    let kind = if device.hasUnifiedMemory() { DeviceKind::IntegratedGpu } else { DeviceKind::Gpu };
    let memory = crate::device::memory(device);
    DeviceInfo::new(format!("metal:{index}"), kind).memory(Some(memory.total), Some(memory.free))
}

impl Devices for MetalDevices {
    type Device = MetalDevice;

    fn name(&self) -> &'static str {
        "metal"
    }

    fn list(&self) -> Vec<DeviceInfo> {
        devices().iter().enumerate().map(|(index, device)| info(index, device)).collect()
    }

    fn unavailable(&self) -> Option<String> {
        devices().is_empty().then(|| "Metal finds no GPU".to_owned())
    }

    fn open(&self, name: Option<&str>) -> Result<Arc<MetalDevice>, DeviceError> {
        let devices = devices();
        let index = match name {
            None | Some("metal") => Some(0),
            Some(name) => name.strip_prefix("metal:").and_then(|index| index.parse::<usize>().ok()),
        };
        let count = devices.len();
        let device = index.and_then(|index| Some((index, devices.into_iter().nth(index)?)));
        let Some((index, device)) = device else {
            let name = name.unwrap_or("metal");
            let there = match count {
                0 => "Metal finds no GPU".to_owned(),
                n => format!("there are metal:0 to metal:{}", n - 1),
            };
            return Err(DeviceError::Unavailable(format!("no device '{name}': {there}")));
        };
        let info = info(index, &device);
        MetalDevice::new(device, info).map(Arc::new)
    }
}
