//! Exsa's executor for GPUs: dense decoders over a small [`Device`](device::Device) trait, with kernels in one
//! source for Metal, CUDA and an emulator that runs them on the CPU in every test.
#![forbid(unsafe_code)]

pub mod device;
pub mod kernel;
