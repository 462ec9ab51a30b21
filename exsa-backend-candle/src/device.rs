//! The devices that candle can run on.

use crate::error::CandleError;
use candle_core::Device;
use exsa_core::backend::{DeviceInfo, DeviceKind};
use exsa_core::error::LoadError;

/// The devices of this machine that this build can use, GPUs first.
pub(crate) fn list() -> Vec<DeviceInfo> {
    let mut devices = Vec::new();
    #[cfg(feature = "cuda")]
    {
        let count = candle_core::cuda_backend::cudarc::driver::CudaContext::device_count().unwrap_or(0);
        devices.extend((0..count).map(|i| DeviceInfo::new(format!("cuda:{i}"), DeviceKind::Gpu)));
    }
    #[cfg(feature = "metal")]
    devices.push(DeviceInfo::new("metal", DeviceKind::IntegratedGpu));
    let memory = host_memory();
    let (total, free) = memory.unzip();
    devices.push(DeviceInfo::new("cpu", DeviceKind::Cpu).memory(total, free));
    devices
}

/// The name of the device called `name`, which exists; `None` takes the first of [`list`].
pub(crate) fn find(name: Option<&str>) -> Result<String, LoadError> {
    let devices = list();
    let first = devices.first().map_or("cpu", |device| device.name.as_str());
    let name = name.unwrap_or(first);
    if !devices.iter().any(|device| device.name == name) {
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        return Err(LoadError::Option {
            option: "device",
            problem: format!("there is no device '{name}', but {}", names.join(", ")),
        });
    }
    Ok(name.to_owned())
}

/// Opens the device called `name`; `None` takes the first of [`list`].
pub(crate) fn open(name: Option<&str>) -> Result<Device, LoadError> {
    let name = find(name)?;
    match name.split_once(':') {
        Some(("cuda", index)) => Device::new_cuda(index.parse().unwrap_or(0)).load(),
        _ if name == "metal" => Device::new_metal(0).load(),
        _ => Ok(Device::Cpu),
    }
}

/// Total and available bytes of host memory, where the system tells in a file.
fn host_memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((bytes("MemTotal")?, bytes("MemAvailable")?))
}
