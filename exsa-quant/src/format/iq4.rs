//! Four bits by codebook: IQ4_NL (blocks of 32, one scale) and IQ4_XS (8 groups of 32 with 6-bit scales).
//!
//! IQ4_XS: `d`, 2 bytes of upper scale bits (2 per group), 4 bytes of lower scale bits (4 per group), 128
//! bytes of nibbles; a value is `d * (scale - 32) * codebook[q]`.

use super::{SUPER_BLOCK, f16_at, split_nibbles, u16_at};
use crate::codebook::IQ4_VALUES;

pub(crate) fn nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    split_nibbles(&block[2..], out, |_, q| d * f32::from(IQ4_VALUES[usize::from(q)]));
}

pub(crate) fn xs(block: &[u8; 136], out: &mut [f32; SUPER_BLOCK]) {
    let (d, upper) = (f16_at(block, 0), u16_at(block, 2));
    let (lower, quants) = (&block[4..8], &block[8..]);
    for (group, (out, nibbles)) in out.chunks_exact_mut(32).zip(quants.chunks_exact(16)).enumerate() {
        let low = (lower[group / 2] >> (group % 2 * 4)) & 15;
        let high = ((upper >> (2 * group)) & 3) as u8;
        let scale = d * f32::from((low | high << 4).cast_signed() - 32);
        split_nibbles(nibbles, out, |_, q| scale * f32::from(IQ4_VALUES[usize::from(q)]));
    }
}
