//! Devices by name, as `LoadOptions::device` gives it.

use crate::ffi::{self, Device, Kind};
use exsa_core::backend::{DeviceInfo, DeviceKind};
use exsa_core::error::LoadError;

/// Devices that a model can be loaded to, GPUs first.
pub(crate) fn list() -> Vec<DeviceInfo> {
    let mut infos: Vec<DeviceInfo> = usable().iter().map(info).collect();
    infos.sort_by_key(|info| info.kind == DeviceKind::Cpu);
    infos
}

/// Resolves a `LoadOptions::device`: `None` for all devices, an empty list for only the CPU.
pub(crate) fn choose(name: Option<&str>) -> Result<Option<Vec<Device>>, LoadError> {
    let Some(name) = name else { return Ok(None) };
    let device = usable().into_iter().find(|device| exsa_name(&device.name) == name);
    let device = device.ok_or_else(|| {
        let names: Vec<String> = list().into_iter().map(|device| device.name).collect();
        let problem = format!("unknown device '{name}'; available: {}", names.join(", "));
        LoadError::Option { option: "device", problem }
    })?;
    Ok(Some(if device.kind == Kind::Cpu { Vec::new() } else { vec![device] }))
}

fn usable() -> Vec<Device> {
    ffi::init();
    ffi::devices().into_iter().filter(|device| device.kind != Kind::Other).collect()
}

fn info(device: &Device) -> DeviceInfo {
    let (free, total) = device.memory;
    let known = |bytes: usize| Some(bytes as u64).filter(|bytes| *bytes > 0);
    let kind = match device.kind {
        Kind::Gpu => DeviceKind::Gpu,
        Kind::IntegratedGpu => DeviceKind::IntegratedGpu,
        Kind::Cpu | Kind::Other => DeviceKind::Cpu,
    };
    DeviceInfo::new(exsa_name(&device.name), kind).memory(known(total), known(free))
}

/// Converts llama.cpp's names to those of other backends: `CPU` is `cpu`, `CUDA0` is `cuda:0`.
fn exsa_name(name: &str) -> String {
    let name = name.to_lowercase();
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match &name[stem.len()..] {
        "" => name,
        digits => format!("{stem}:{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_like_those_of_other_backends() {
        assert_eq!(exsa_name("CPU"), "cpu");
        assert_eq!(exsa_name("CUDA0"), "cuda:0");
        assert_eq!(exsa_name("Vulkan12"), "vulkan:12");
        assert_eq!(exsa_name("Metal"), "metal");
    }

    #[test]
    fn the_cpu_is_there_and_needs_no_device() {
        assert!(list().iter().any(|device| device.name == "cpu" && device.memory_total > Some(0)));
        assert!(choose(Some("cpu")).unwrap().unwrap().is_empty());
        assert!(choose(None).unwrap().is_none());
        let error = choose(Some("cuda:77")).unwrap_err().to_string();
        assert!(error.contains("cuda:77") && error.contains("cpu"), "{error}");
    }
}
