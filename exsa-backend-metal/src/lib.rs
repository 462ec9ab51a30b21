//! Exsa's backend for Apple GPUs: the executor and kernels of `exsa-gpu` on Metal.
//!
//! **Never run on a Mac.** The kernels are proved on the CPU by an emulator, their Metal form has been
//! checked for syntax, and the code of this crate has been type-checked. `docs/metal.md` has the details, and
//! asks for the report of the example `selftest`.
//!
//! Weights are used in place where a mapped file's pages allow it. The kernels are compiled when a model
//! first needs them; the system keeps them for later starts. On systems other than macOS the list of devices
//! is empty.
//!
//! ```
//! use exsa_backend_metal::MetalDevices;
//! use exsa_gpu::device::Devices;
//!
//! let devices = MetalDevices::new();
//! match devices.unavailable() {
//!     Some(reason) => println!("no Metal: {reason}"),
//!     None => devices.list().iter().for_each(|device| println!("{}", device.name)),
//! }
//! ```

#[cfg(target_os = "macos")]
mod buffer;
#[cfg(target_os = "macos")]
mod device;
#[cfg(target_os = "macos")]
mod devices;
#[cfg(target_os = "macos")]
mod failure;
#[cfg(target_os = "macos")]
mod stream;

#[cfg(not(target_os = "macos"))]
mod absent;

#[cfg(not(target_os = "macos"))]
pub use absent::{MetalBuffer, MetalDevice, MetalDevices, MetalKernel, MetalStream};
#[cfg(target_os = "macos")]
pub use {
    buffer::MetalBuffer,
    device::{MetalDevice, MetalKernel},
    devices::MetalDevices,
    stream::MetalStream,
};

use exsa_gpu::GpuBackend;

/// Runs GGUF models on Apple GPUs.
///
/// ```
/// use exsa_backend_metal::{MetalBackend, MetalDevices};
/// use exsa_core::backend::InferenceBackend;
///
/// let backend = MetalBackend::new(MetalDevices::new());
/// assert_eq!(backend.name(), "metal");
/// ```
pub type MetalBackend = GpuBackend<MetalDevices>;
