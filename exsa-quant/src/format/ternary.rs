//! Ternary super-blocks, for models such as BitNet b1.58: TQ1_0 (five values per byte) and TQ2_0 (four).
//!
//! A byte of TQ1_0 holds five base-3 digits as the fraction `byte / 256` of 1: multiplying by 3 moves the
//! next digit above the point. 32 bytes hold digits of values 0 to 159, 16 bytes those of 160 to 239, and 4
//! bytes with four digits each the rest; digit `n` of byte `i` of a run of `k` bytes is value `n * k + i` of
//! that run. The f16 scale is last. A value is `d * (digit - 1)`.

use super::{SUPER_BLOCK, f16_at};

/// First byte, bytes and digits per byte of each run of TQ1_0.
pub(crate) const TQ1_RUNS: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];

pub(crate) fn tq1_0(block: &[u8; 54], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 52);
    let mut values = out.iter_mut();
    for (start, len, digits) in TQ1_RUNS {
        let mut power = 1u8;
        for _ in 0..digits {
            for (byte, out) in block[start..start + len].iter().zip(&mut values) {
                let fraction = byte.wrapping_mul(power);
                let digit = (u16::from(fraction) * 3) >> 8;
                *out = (f32::from(digit) - 1.0) * d;
            }
            power = power.wrapping_mul(3);
        }
    }
}

pub(crate) fn tq2_0(block: &[u8; 66], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 64);
    for (out, bytes) in out.chunks_exact_mut(128).zip(block[..64].chunks_exact(32)) {
        for (i, out) in out.iter_mut().enumerate() {
            let q = (bytes[i % 32] >> (i / 32 * 2)) & 3;
            *out = (f32::from(q) - 1.0) * d;
        }
    }
}
