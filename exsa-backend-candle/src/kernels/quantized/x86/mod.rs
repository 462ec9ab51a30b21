//! Products of packed weights on x86-64.

pub mod amx;
pub mod avx2;
pub mod avx512;
mod avx512_lanes;
