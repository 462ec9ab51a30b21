//! Exsa's backend for NVIDIA GPUs: the executor and kernels of `exsa-gpu` on the CUDA driver.
//!
//! **Never run on a GPU yet.** The kernels are proved on the CPU by an emulator and compiled for sm_75, sm_80
//! and sm_90 by NVRTC; what is in this crate beyond listing and errors has only been type-checked.
//! `docs/gpu.md` says how to check a machine.
//!
//! To build takes Rust and a linker. To run takes NVIDIA's driver and NVRTC (`libnvrtc.so`, in the CUDA
//! toolkit and in the Python wheel `nvidia-cuda-nvrtc-cu12`); both are loaded at run time. Without them the
//! list of devices is empty, or loading a model fails, with the reason in words.
//!
//! Kernels are compiled for the device when a model first needs them, and kept in a folder
//! ([`CudaDevices::cache`]).
//!
//! ```
//! use exsa_backend_cuda::CudaDevices;
//! use exsa_gpu::device::Devices;
//!
//! let devices = CudaDevices::new();
//! match devices.unavailable() {
//!     Some(reason) => println!("no NVIDIA GPU: {reason}"),
//!     None => devices.list().iter().for_each(|device| println!("{}", device.name)),
//! }
//! ```

mod buffer;
mod cache;
mod context;
mod device;
mod devices;
mod driver;
mod failure;
mod nvrtc;
mod nvrtc_library;
mod staging;
mod stream;
mod target;

pub use buffer::CudaBuffer;
pub use device::{CudaDevice, CudaKernel};
pub use devices::CudaDevices;
pub use stream::CudaStream;

#[doc(hidden)]
pub mod compile;

use exsa_gpu::GpuBackend;

/// Runs GGUF models on NVIDIA GPUs.
///
/// ```
/// use exsa_backend_cuda::{CudaBackend, CudaDevices};
/// use exsa_core::backend::InferenceBackend;
///
/// let backend = CudaBackend::new(CudaDevices::new());
/// assert_eq!(backend.name(), "cuda");
/// ```
pub type CudaBackend = GpuBackend<CudaDevices>;
