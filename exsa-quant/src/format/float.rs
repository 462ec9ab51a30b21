//! Numbers without blocks: F32, F16, BF16, F64.

use half::{bf16, f16 as Half};

pub(crate) fn f32(bytes: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*bytes);
}

pub(crate) fn f16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = Half::from_le_bytes(*bytes).to_f32();
}

pub(crate) fn bf16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = bf16::from_le_bytes(*bytes).to_f32();
}

/// Rounds to the nearest f32, ties to even.
pub(crate) fn f64(bytes: &[u8; 8], out: &mut [f32; 1]) {
    out[0] = f64::from_le_bytes(*bytes) as f32;
}
