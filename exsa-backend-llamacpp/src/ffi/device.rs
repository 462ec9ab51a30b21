//! Devices that llama.cpp supports and found.

use super::text;
use llama_cpp_sys_2 as sys;

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(super) ptr: sys::ggml_backend_dev_t,
    /// llama.cpp's name: `CPU`, `CUDA0`.
    pub name: String,
    /// Kind of device.
    pub kind: Kind,
    /// Free and total bytes; 0 if unknown.
    pub memory: (usize, usize),
}

/// Kinds of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cpu,
    Gpu,
    IntegratedGpu,
    /// A library beside the CPU, such as BLAS.
    Other,
}

// SAFETY: a device is an entry of llama.cpp's registry, which is filled once, by `init`, and never freed.
unsafe impl Send for Device {}
// SAFETY: an entry of the registry is never changed, and the functions that take it only read.
unsafe impl Sync for Device {}

/// All devices, in llama.cpp's order. `init` was called.
pub(crate) fn devices() -> Vec<Device> {
    // SAFETY: reads the registry.
    let count = unsafe { sys::ggml_backend_dev_count() };
    (0..count).map(device).collect()
}

fn device(index: usize) -> Device {
    let (mut free, mut total) = (0, 0);
    // SAFETY: the index is below the count, so that the device exists; `free` and `total` outlive the call.
    let (ptr, name, kind) = unsafe {
        let ptr = sys::ggml_backend_dev_get(index);
        sys::ggml_backend_dev_memory(ptr, &mut free, &mut total);
        (ptr, sys::ggml_backend_dev_name(ptr), sys::ggml_backend_dev_type(ptr))
    };
    let kind = match kind {
        sys::GGML_BACKEND_DEVICE_TYPE_CPU => Kind::Cpu,
        sys::GGML_BACKEND_DEVICE_TYPE_GPU => Kind::Gpu,
        sys::GGML_BACKEND_DEVICE_TYPE_IGPU => Kind::IntegratedGpu,
        _ => Kind::Other,
    };
    Device { ptr, name: text(name), kind, memory: (free, total) }
}
