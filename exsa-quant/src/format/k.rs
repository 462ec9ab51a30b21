//! Super-blocks of 256 values in groups with scales of their own: Q2_K to Q6_K, Q8_K.
//!
//! | type | groups | fields in order | value |
//! |---|---|---|---|
//! | Q2_K | 16 of 16 | 16 bytes of scales (low half) and minima (high half), 64 bytes of `q`, `d`, `dmin` | `d * sc * q - dmin * m` |
//! | Q3_K | 16 of 16 | 32 bytes of third bits, 64 bytes of low bits, 12 bytes of scales, `d` | `d * (sc - 32) * (q - 4)` |
//! | Q4_K | 8 of 32 | `d`, `dmin`, 12 bytes of scales and minima, 128 bytes of nibbles | `d * sc * q - dmin * m` |
//! | Q5_K | 8 of 32 | `d`, `dmin`, 12 bytes of scales and minima, 32 bytes of fifth bits, nibbles | `d * sc * q - dmin * m` |
//! | Q6_K | 16 of 16 | 128 bytes of low nibbles, 64 bytes of upper bits, 16 signed scales, `d` | `d * sc * (q - 32)` |
//! | Q8_K | none | `d` as f32, 256 signed bytes, 16 sums of 16-bit | `d * q` |

use super::legacy::signed_bytes;
use super::{SUPER_BLOCK, f16_at, u32_at};

pub(crate) fn q2(block: &[u8; 84], out: &mut [f32; SUPER_BLOCK]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (group, (out, scale)) in out.chunks_exact_mut(16).zip(scales).enumerate() {
        let (scale, min) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(two_bits(quants, 16 * group + i)) - min;
        }
    }
}

pub(crate) fn q3(block: &[u8; 110], out: &mut [f32; SUPER_BLOCK]) {
    let (third, quants) = (&block[..32], &block[32..96]);
    let scales = unpack_q3_scales(&block[96..108]);
    let d = f16_at(block, 108);
    for (group, (out, scale)) in out.chunks_exact_mut(16).zip(scales).enumerate() {
        let scale = d * f32::from(scale);
        for (i, out) in out.iter_mut().enumerate() {
            let i = 16 * group + i;
            let high = (third[i % 32] >> (i / 32)) & 1;
            let q = (two_bits(quants, i) | high << 2).cast_signed() - 4;
            *out = scale * f32::from(q);
        }
    }
}

pub(crate) fn q4(block: &[u8; 144], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let quants = &block[16..];
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], group);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let nibbles = &quants[group / 2 * 32..][..32];
        for (out, byte) in out.iter_mut().zip(nibbles) {
            *out = scale * f32::from((byte >> (group % 2 * 4)) & 15) - min;
        }
    }
}

pub(crate) fn q5(block: &[u8; 176], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (fifth, quants) = (&block[16..48], &block[48..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], group);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let nibbles = &quants[group / 2 * 32..][..32];
        for ((out, byte), fifth) in out.iter_mut().zip(nibbles).zip(fifth) {
            let q = (byte >> (group % 2 * 4)) & 15 | ((fifth >> group) & 1) << 4;
            *out = scale * f32::from(q) - min;
        }
    }
}

pub(crate) fn q6(block: &[u8; 210], out: &mut [f32; SUPER_BLOCK]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = f16_at(block, 208);
    for (group, (out, scale)) in out.chunks_exact_mut(16).zip(scales).enumerate() {
        let scale = d * f32::from(scale.cast_signed());
        for (i, out) in out.iter_mut().enumerate() {
            // Each half of the super-block has 64 bytes of nibbles: low halves for its first 64 values, high
            // halves for the rest.
            let i = 16 * group + i;
            let (half, place) = (i / 128, i % 128);
            let nibble = (low[64 * half + place % 64] >> (place / 64 * 4)) & 15;
            let q = (nibble | two_bits(high, i) << 4).cast_signed() - 32;
            *out = scale * f32::from(q);
        }
    }
}

pub(crate) fn q8(block: &[u8; 292], out: &mut [f32; SUPER_BLOCK]) {
    signed_bytes(f32::from_bits(u32_at(block, 0)), &block[4..260], out);
}

/// The two bits of value `i` in 64 bytes: each half of the super-block has 32 bytes, whose bits 0 and 1
/// belong to its first 32 values, bits 2 and 3 to the next 32, and so on.
#[inline]
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    let (half, place) = (i / 128, i % 128);
    (bytes[32 * half + place % 32] >> (place / 32 * 2)) & 3
}

/// Scale and minimum, 6 bits each, of one of the 8 groups of Q4_K and Q5_K. Bytes 0 to 3 hold the scales of
/// groups 0 to 3, bytes 4 to 7 their minima; bytes 8 to 11 hold the low 4 bits of both for groups 4 to 7,
/// whose upper 2 bits are at the top of bytes 0 to 7.
#[inline]
pub(crate) fn scale_and_min(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    }
}

/// The 16 scales of Q3_K, less their offset of 32. Bytes 0 to 7 hold the low 4 bits of groups 0 to 7 (low
/// halves) and 8 to 15 (high halves); byte `8 + g % 4` holds the upper 2 bits of group `g` at bit `g / 4 *
/// 2`.
fn unpack_q3_scales(packed: &[u8]) -> [i8; 16] {
    std::array::from_fn(|group| {
        let low = (packed[group % 8] >> (group / 8 * 4)) & 15;
        let high = (packed[8 + group % 4] >> (group / 4 * 2)) & 3;
        (low | high << 4).cast_signed() - 32
    })
}
