//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and IQ4_NL: blocks of 32 values with one scale.

use super::fit::{Search, fit_line, fit_scale};
use super::levels::{Integers, Iq4Levels, Levels};
use super::pack::{f16_of, inverse, put_nibbles};

const SEARCH: Search = Search { from: -1.2, step: 0.1, count: 27 };

/// IQ4 levels are up to 24 apart.
const IQ4_SEARCH: Search = Search { from: -16.0, step: 1.0, count: 36 };

/// There are 127 levels on either side, so a finer scale search gains little.
const Q8_SEARCH: Search = Search { from: -0.6, step: 0.2, count: 7 };

pub(super) fn q4_0(x: &[f32; 32], w: &[f32; 32], block: &mut [u8; 18]) {
    let (d, codes) = scaled(x, w, Integers::<-8, 7>, SEARCH);
    block[..2].copy_from_slice(&d);
    put_nibbles(&codes, &mut block[2..]);
}

pub(super) fn q4_1(x: &[f32; 32], w: &[f32; 32], block: &mut [u8; 20]) {
    let (d, m, codes) = lined(x, w, Integers::<0, 15>);
    block[..2].copy_from_slice(&d);
    block[2..4].copy_from_slice(&m);
    put_nibbles(&codes, &mut block[4..]);
}

pub(super) fn q5_0(x: &[f32; 32], w: &[f32; 32], block: &mut [u8; 22]) {
    let (d, codes) = scaled(x, w, Integers::<-16, 15>, SEARCH);
    block[..2].copy_from_slice(&d);
    block[2..6].copy_from_slice(&fifth_bits(&codes));
    put_nibbles(&codes, &mut block[6..]);
}

pub(super) fn q5_1(x: &[f32; 32], w: &[f32; 32], block: &mut [u8; 24]) {
    let (d, m, codes) = lined(x, w, Integers::<0, 31>);
    block[..2].copy_from_slice(&d);
    block[2..4].copy_from_slice(&m);
    block[4..8].copy_from_slice(&fifth_bits(&codes));
    put_nibbles(&codes, &mut block[8..]);
}

pub(super) fn q8_0(x: &[f32; 32], w: &[f32; 32], block: &mut [u8; 34]) {
    let (d, codes) = scaled(x, w, Integers::<-127, 127>, Q8_SEARCH);
    block[..2].copy_from_slice(&d);
    for (byte, code) in block[2..].iter_mut().zip(codes) {
        *byte = code.wrapping_sub(127);
    }
}

pub(super) fn iq4_nl(x: &[f32; 32], w: &[f32; 32], block: &mut [u8; 18]) {
    let (d, codes) = scaled(x, w, Iq4Levels, IQ4_SEARCH);
    block[..2].copy_from_slice(&d);
    put_nibbles(&codes, &mut block[2..]);
}

/// The scale as f16 and the codes of all values.
fn scaled<L: Levels>(x: &[f32; 32], w: &[f32; 32], levels: L, search: Search) -> ([u8; 2], [u8; 32]) {
    let (bytes, d) = f16_of(fit_scale(x, w, levels, search));
    let inverse = inverse(d);
    (bytes, x.map(|x| levels.code(x * inverse)))
}

/// Scale and minimum as f16 and the codes of all values.
fn lined<L: Levels>(x: &[f32; 32], w: &[f32; 32], levels: L) -> ([u8; 2], [u8; 2], [u8; 32]) {
    let (d, m) = fit_line(x, w, levels, SEARCH, f32::INFINITY);
    let ((d_bytes, d), (m_bytes, m)) = (f16_of(d), f16_of(m));
    let inverse = inverse(d);
    (d_bytes, m_bytes, x.map(|x| levels.code((x - m) * inverse)))
}

/// Bit 4 of each code.
fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let bits = codes.iter().enumerate().fold(0u32, |bits, (i, code)| bits | u32::from(code >> 4 & 1) << i);
    bits.to_le_bytes()
}
