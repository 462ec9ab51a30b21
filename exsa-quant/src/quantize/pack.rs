//! Fields of blocks.

use half::f16;

/// `x` as the bytes of an f16, kept finite, and its value.
pub(super) fn f16_of(x: f32) -> ([u8; 2], f32) {
    let max = f16::MAX.to_f32();
    let half = f16::from_f32(x.max(-max).min(max));
    (half.to_le_bytes(), half.to_f32())
}

/// `x` rounded to an f16 and kept finite.
pub(super) fn round_to_f16(x: f32) -> f32 {
    f16_of(x).1
}

/// 1 / `x`, or 0 for 0: the factor of values before they are rounded to levels.
pub(super) fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Puts codes into nibbles: the first half of `codes` into the low halves of `bytes`, the rest into the high.
pub(super) fn put_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(codes.len() / 2);
    for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = low & 15 | high << 4;
    }
}

/// Puts two-bit codes of a super-block into 64 bytes: each half of it has 32 bytes, whose bits 0 and 1 belong
/// to its first 32 values.
pub(super) fn put_two_bits(codes: &[u8], bytes: &mut [u8]) {
    bytes.fill(0);
    for (i, code) in codes.iter().enumerate() {
        let (half, place) = (i / 128, i % 128);
        bytes[32 * half + place % 32] |= (code & 3) << (place / 32 * 2);
    }
}
