//! Two bits by lattice: groups of 8 magnitudes from a grid, with signs: IQ2_XXS, IQ2_XS, IQ2_S.
//!
//! | type | fields in order |
//! |---|---|
//! | IQ2_XXS | `d`; per 32 values 4 grid indices of 8 bits and a word with 4 sign codes of 7 bits and a scale of 4 |
//! | IQ2_XS | `d`; per 8 values 9 bits of grid index and 7 of sign code; per 32 values two scales of 4 bits |
//! | IQ2_S | `d`; low 8 bits of 32 indices; 32 bytes of signs; upper 2 bits of 4 indices per byte; two scales per 32 |
//!
//! A value is `d * (scale + 1/2) / 4 * magnitude`, negative where its sign bit is set.

use super::{SUPER_BLOCK, f16_at, u16_at, u32_at};
use crate::codebook::{IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, SIGNS};

pub(crate) fn xxs(block: &[u8; 66], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 0);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let at = 2 + 8 * group;
        let word = u32_at(block, at + 4);
        let scale = step(d, (word >> 28) as u8);
        for (l, out) in out.chunks_exact_mut(8).enumerate() {
            let signs = SIGNS[(word >> (7 * l)) as usize & 127];
            signed(scale, &IQ2_XXS_GRID[usize::from(block[at + l])], signs, out);
        }
    }
}

pub(crate) fn xs(block: &[u8; 74], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 0);
    for (octet, out) in out.chunks_exact_mut(8).enumerate() {
        let code = usize::from(u16_at(block, 2 + 2 * octet));
        let scale = step(d, octet_scale(&block[66..], octet));
        signed(scale, &IQ2_XS_GRID[code & 511], SIGNS[code >> 9], out);
    }
}

pub(crate) fn s(block: &[u8; 82], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 0);
    let (low, signs, high) = (&block[2..34], &block[34..66], &block[66..74]);
    for (octet, out) in out.chunks_exact_mut(8).enumerate() {
        let upper = usize::from(high[octet / 4] >> (octet % 4 * 2) & 3);
        let index = usize::from(low[octet]) | upper << 8;
        let scale = step(d, octet_scale(&block[74..], octet));
        signed(scale, &IQ2_S_GRID[index], signs[octet], out);
    }
}

/// The scale code of 8 values: a byte has that of 16 values in its low half and of the next 16 in its high
/// half.
#[inline]
fn octet_scale(scales: &[u8], octet: usize) -> u8 {
    scales[octet / 4] >> (octet / 2 % 2 * 4) & 15
}

/// The factor of magnitudes for a scale code.
#[inline]
fn step(d: f32, code: u8) -> f32 {
    d * (0.5 + f32::from(code)) * 0.25
}

/// Scaled magnitudes with their signs, bit `i` for value `i`.
#[inline]
pub(super) fn signed<const N: usize>(scale: f32, magnitudes: &[u8; N], signs: u8, out: &mut [f32]) {
    for (i, (out, magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        let sign = if signs >> i & 1 == 1 { -1.0 } else { 1.0 };
        *out = scale * f32::from(*magnitude) * sign;
    }
}
