//! The block formats, one family per file: fields of a block and their meaning.
//!
//! A function per type takes the bytes of one block and fills in its values. Fields are little-endian.

pub(crate) mod binary;
pub(crate) mod float;
pub(crate) mod fp4;
pub(crate) mod iq1;
pub(crate) mod iq2;
pub(crate) mod iq3;
pub(crate) mod iq4;
pub(crate) mod k;
pub(crate) mod legacy;
pub(crate) mod ternary;

/// Values of a super-block of the K, IQ and ternary types.
pub(crate) const SUPER_BLOCK: usize = 256;

/// The f16 at byte `at` of a block.
#[inline]
pub(crate) fn f16_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_bits(u16_at(block, at)).to_f32()
}

/// The 16-bit number at byte `at` of a block.
#[inline]
pub(crate) fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The 32-bit number at byte `at` of a block.
#[inline]
pub(crate) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The two values of each byte of `nibbles`: the low halves come first in `out`, then the high halves.
#[inline]
pub(crate) fn split_nibbles(nibbles: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let half = nibbles.len();
    for (i, byte) in nibbles.iter().enumerate() {
        out[i] = value(i, byte & 15);
        out[i + half] = value(i + half, byte >> 4);
    }
}
