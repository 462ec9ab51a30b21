//! Four-bit floating point (E2M1): MXFP4, with a power of two per 32 values (E8M0), and NVFP4, with an
//! unsigned E4M3 scale per 16 values.
//!
//! E2M1 and E8M0 are defined in the OCP Microscaling Formats (MX) specification 1.0. [`MXFP4_VALUES`] has
//! doubled values, so scales are halved here. As in ggml, the exponent 255 is an ordinary exponent instead of
//! NaN, and the E4M3 code of NaN is 0.

use super::split_nibbles;
use crate::codebook::MXFP4_VALUES;

pub(crate) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let d = e8m0_halved(block[0]);
    split_nibbles(&block[1..], out, |_, q| f32::from(MXFP4_VALUES[usize::from(q)]) * d);
}

/// Four scales, then 8 bytes of nibbles for each group of 16.
pub(crate) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    let (scales, quants) = block.split_at(4);
    for ((out, nibbles), scale) in out.chunks_exact_mut(16).zip(quants.chunks_exact(8)).zip(scales) {
        let d = ue4m3_halved(*scale);
        split_nibbles(nibbles, out, |_, q| f32::from(MXFP4_VALUES[usize::from(q)]) * d);
    }
}

/// Half the scale of exponent `e`: 2^(e - 128). The two smallest are subnormal.
#[inline]
pub(crate) fn e8m0_halved(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits((u32::from(e) - 1) << 23),
    }
}

/// Half of the unsigned E4M3 number `code` (bias 7); bit 7 is ignored.
#[inline]
pub(crate) fn ue4m3_halved(code: u8) -> f32 {
    if code == 0 || code == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    // 2^-10 is half of the subnormal unit 2^-9; a normal number is (8 + mantissa) * 2^(exponent - 10).
    if exponent == 0 { mantissa * exp2(-10) } else { (8.0 + mantissa) * exp2(exponent - 11) }
}

/// 2^n for the exponents of normal f32.
#[inline]
fn exp2(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}
