//! Vector code: compiled per instruction set from loops, or written for registers.

mod dispatch;
pub mod exp;
mod vector;

#[cfg(target_arch = "x86_64")]
pub(crate) use dispatch::{Avx2, Avx512};
pub(crate) use dispatch::{Baseline, Simd, dispatch};
pub(crate) use vector::{Fused, Vector};
