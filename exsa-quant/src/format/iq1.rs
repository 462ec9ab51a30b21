//! Ternary lattice: groups of 8 values -1, 0, 1 from a grid of 2048, shifted by an eighth: IQ1_S, IQ1_M.
//!
//! IQ1_S: `d`; low 8 bits of 32 indices; per 32 values a 16-bit word with the upper 3 bits of 4 indices, a
//! scale of 3 bits and the direction of the shift. IQ1_M: low 8 bits of 32 indices; per 8 values a nibble
//! with upper index bits and direction; four 16-bit words with 3-bit scales per 16 values, whose top nibbles
//! make up `d`. A value is `d * (2 * scale + 1) * (grid + shift)`.

use super::{SUPER_BLOCK, f16_at, u16_at};
use crate::codebook::{IQ1_GRID, IQ1_SHIFT};

pub(crate) fn s(block: &[u8; 50], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 0);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let word = u16_at(block, 34 + 2 * group);
        let scale = d * f32::from(2 * (word >> 12 & 7) + 1);
        for (l, out) in out.chunks_exact_mut(8).enumerate() {
            let index = usize::from(block[2 + 4 * group + l]) | usize::from(word >> (3 * l) & 7) << 8;
            shifted(scale, index, word >> 15 == 1, out);
        }
    }
}

pub(crate) fn m(block: &[u8; 56], out: &mut [f32; SUPER_BLOCK]) {
    let words: [u16; 4] = std::array::from_fn(|i| u16_at(block, 48 + 2 * i));
    let d = words.iter().rev().fold(0u16, |bits, word| bits << 4 | word >> 12);
    let d = half::f16::from_bits(d).to_f32();
    for (octet, out) in out.chunks_exact_mut(8).enumerate() {
        let nibble = block[32 + octet / 2] >> (octet % 2 * 4);
        let index = usize::from(block[octet]) | usize::from(nibble & 7) << 8;
        // Scales of 16 values: four in the low 12 bits of each word.
        let half = octet / 2;
        let code = words[half / 4] >> (3 * (half % 4)) & 7;
        shifted(d * f32::from(2 * code + 1), index, nibble & 8 != 0, out);
    }
}

/// Scaled and shifted values of a grid entry.
#[inline]
fn shifted(scale: f32, index: usize, down: bool, out: &mut [f32]) {
    let shift = if down { -IQ1_SHIFT } else { IQ1_SHIFT };
    for (out, value) in out.iter_mut().zip(&IQ1_GRID[index]) {
        *out = scale * (f32::from(*value) + shift);
    }
}
