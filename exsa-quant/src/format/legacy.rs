//! Blocks of 32 values with one f16 scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1.
//!
//! | type | fields | value |
//! |---|---|---|
//! | Q4_0 | scale `d`, 16 bytes of nibbles | `d * (q - 8)` |
//! | Q4_1 | `d`, minimum `m`, nibbles | `d * q + m` |
//! | Q5_0 | `d`, 4 bytes of fifth bits, nibbles | `d * (q - 16)` |
//! | Q5_1 | `d`, `m`, fifth bits, nibbles | `d * q + m` |
//! | Q8_0 | `d`, 32 signed bytes | `d * q` |
//! | Q8_1 | `d`, `d` times the sum of all `q`, 32 signed bytes | `d * q` |
//!
//! Byte `i` of the nibbles holds values `i` (low half) and `i + 16` (high half); bit `i` of the fifth bits
//! belongs to value `i`.

use super::{f16_at, split_nibbles, u32_at};

/// Values of a block.
pub(crate) const BLOCK: usize = 32;

pub(crate) fn q4_0(block: &[u8; 18], out: &mut [f32; BLOCK]) {
    let d = f16_at(block, 0);
    split_nibbles(&block[2..], out, |_, q| (i32::from(q) - 8) as f32 * d);
}

pub(crate) fn q4_1(block: &[u8; 20], out: &mut [f32; BLOCK]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    split_nibbles(&block[4..], out, |_, q| f32::from(q) * d + m);
}

pub(crate) fn q5_0(block: &[u8; 22], out: &mut [f32; BLOCK]) {
    let (d, fifth) = (f16_at(block, 0), u32_at(block, 2));
    split_nibbles(&block[6..], out, |i, q| (i32::from(q | fifth_bit(fifth, i)) - 16) as f32 * d);
}

pub(crate) fn q5_1(block: &[u8; 24], out: &mut [f32; BLOCK]) {
    let (d, m, fifth) = (f16_at(block, 0), f16_at(block, 2), u32_at(block, 4));
    split_nibbles(&block[8..], out, |i, q| f32::from(q | fifth_bit(fifth, i)) * d + m);
}

pub(crate) fn q8_0(block: &[u8; 34], out: &mut [f32; BLOCK]) {
    signed_bytes(f16_at(block, 0), &block[2..], out);
}

pub(crate) fn q8_1(block: &[u8; 36], out: &mut [f32; BLOCK]) {
    signed_bytes(f16_at(block, 0), &block[4..], out);
}

/// Scaled signed bytes.
pub(crate) fn signed_bytes(d: f32, bytes: &[u8], out: &mut [f32]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = f32::from(byte.cast_signed()) * d;
    }
}

/// Bit `i` of `bits` as the fifth bit of a number.
#[inline]
fn fifth_bit(bits: u32, i: usize) -> u8 {
    (((bits >> i) & 1) as u8) << 4
}
