//! Exsa's executor for GPUs: dense decoders over a small [`Device`](device::Device) trait, with kernels in
//! one source for Metal, CUDA and an emulator that runs them on the CPU in every test.
#![deny(unsafe_code)]

mod backend;
pub mod device;
mod error;
pub mod kernel;
mod mapping;
mod model;
pub mod selftest;
mod session;

pub use backend::GpuBackend;
pub use model::GpuModel;
