//! Super-blocks of the types with a codebook, and of TQ1_0 and TQ2_0: fields and packing.
//!
//! Those of a codebook are the 16 `d`, for IQ3_S the scales, and eight runs of 32 values. A run has the low
//! bytes of the indices, `[group][TILE]`, and fields of a byte or more for each row behind them. TQ1_0 has 13
//! lines of 64 bytes; digit `n` of the bytes of line `i` is group `5 · i + n` of four values.

use super::pack::{put_pairs, word};
use super::*;

/// `d` of 16 rows, in front of all these super-blocks.
pub const CODEBOOK_HEADER: usize = 2 * TILE;

/// IQ3_S, behind the header: scales of 64 values, `[4][TILE]`, a nibble for each 32.
const IQ3S_SCALES: usize = CODEBOOK_HEADER;

/// Low bytes of the indices of a run, one for each four values.
const QUAD_INDICES: usize = 8 * TILE;

/// The same, one for each eight values.
const OCTET_INDICES: usize = 4 * TILE;

/// Signs of a run: four codes of 7 bits and a scale of 4 in 32 bits, `[TILE]`, or plain bits, `[4][TILE]`.
const SIGNS: usize = 4 * TILE;

/// Places of the fields of a type. A type that lacks a field has the place where it would be.
#[derive(Clone, Copy, Debug)]
pub struct RunFields {
    /// Place of the first run in the super-block.
    pub first: usize,
    /// Within a run: signs, or for IQ1 types upper bits of the indices, `[2][TILE]`, a nibble for each octet.
    pub signs: usize,
    /// Within a run: upper bits of the indices, `[TILE]`.
    pub high: usize,
    /// Within a run: scales of 16 values, `[TILE]`, the first in the low nibble; IQ3_S: within the
    /// super-block.
    pub scales: usize,
    /// Bytes of a run.
    pub bytes: usize,
}

impl RunFields {
    /// Of a type with a codebook.
    pub const fn of(kind: PackedType) -> Self {
        let (signs, sign_bytes, high, scales) = match kind {
            PackedType::Iq3Xxs => (QUAD_INDICES, SIGNS, 0, 0),
            PackedType::Iq3S => (QUAD_INDICES, SIGNS, TILE, 0),
            PackedType::Iq2Xs => (OCTET_INDICES, SIGNS, TILE, 0),
            PackedType::Iq2S => (OCTET_INDICES, SIGNS, TILE, TILE),
            PackedType::Iq1S => (OCTET_INDICES, 2 * TILE, 0, 0),
            PackedType::Iq1M => (OCTET_INDICES, 2 * TILE, 0, TILE),
            _ => (OCTET_INDICES, SIGNS, 0, 0),
        };
        let is_iq3_s = matches!(kind, PackedType::Iq3S);
        let first = if is_iq3_s { IQ3S_SCALES + 4 * TILE } else { CODEBOOK_HEADER };
        let high_at = signs + sign_bytes;
        let scales_at = high_at + high;
        Self {
            first,
            signs,
            high: high_at,
            scales: if is_iq3_s { IQ3S_SCALES } else { scales_at },
            bytes: scales_at + scales,
        }
    }

    /// Bytes of a super-block.
    pub const fn super_block_bytes(self) -> usize {
        self.first + 8 * self.bytes
    }
}

/// TQ1_0: lines of 64 bytes, of five digits each but the last, which has four.
pub const TQ1_LINES: usize = 13;

/// TQ1_0: the whole.
pub const TQ1_BYTES: usize = CODEBOOK_HEADER + TQ1_LINES * 64;

/// TQ2_0: a part, of 64 values, in bit pairs as of Q2_K.
pub const TQ2_PART: usize = PAIRS;

/// TQ2_0: the whole.
pub const TQ2_BYTES: usize = CODEBOOK_HEADER + 4 * TQ2_PART;

/// Packs a block of a type with a codebook into the place of `row`.
pub fn put_codebook(kind: PackedType, bytes: &[u8], row: usize, out: &mut [u8]) {
    let fields = RunFields::of(kind);
    let d = match kind {
        PackedType::Iq1M => (0..4).fold(0, |d, i| d | (half_word(bytes, 48 + i * 2) >> 12) << (i * 4)),
        _ => half_word(bytes, 0),
    };
    out[row * 2..][..2].copy_from_slice(&d.to_le_bytes());
    if kind == PackedType::Iq3S {
        for (part, scales) in bytes[106..110].iter().enumerate() {
            out[fields.scales + part * TILE + row] = *scales;
        }
    }
    for run in 0..8 {
        let out = &mut out[fields.first + run * fields.bytes..][..fields.bytes];
        let mut indices = |indices: &[u8]| {
            for (group, index) in indices.iter().enumerate() {
                out[group * TILE + row] = *index;
            }
        };
        match kind {
            PackedType::Iq3Xxs => {
                indices(&bytes[2 + run * 8..][..8]);
                put_word(out, fields.signs, row, word(bytes, 66 + run * 4));
            }
            PackedType::Iq3S => {
                indices(&bytes[2 + run * 8..][..8]);
                put_signs(&bytes[74 + run * 4..][..4], fields.signs, row, out);
                out[fields.high + row] = bytes[66 + run];
            }
            PackedType::Iq2Xs => {
                let codes: [u16; 4] = std::array::from_fn(|l| half_word(bytes, 2 + run * 8 + l * 2));
                indices(&codes.map(|code| code as u8));
                let scales = bytes[66 + run];
                let (mut signs, mut high) = (u32::from(scales & 15) << 28, scales & 0xf0);
                for (l, code) in codes.into_iter().enumerate() {
                    signs |= u32::from(code >> 9) << (l * 7);
                    high |= (code >> 8 & 1) as u8 * (1 << l);
                }
                put_word(out, fields.signs, row, signs);
                out[fields.high + row] = high;
            }
            PackedType::Iq2S => {
                indices(&bytes[2 + run * 4..][..4]);
                put_signs(&bytes[34 + run * 4..][..4], fields.signs, row, out);
                out[fields.high + row] = bytes[66 + run];
                out[fields.scales + row] = bytes[74 + run];
            }
            PackedType::Iq1S => {
                indices(&bytes[2 + run * 4..][..4]);
                // The upper bits of each index get one of the four others on top: the direction, upwards
                // where it is set, then those of the scale.
                let word = half_word(bytes, 34 + run * 2);
                let others = (word >> 12 & 7) << 1 | word >> 15 ^ 1;
                let nibble = |l: usize| (word >> (l * 3) & 7) as u8 | ((others >> l & 1) as u8 * 8);
                out[fields.signs + row] = nibble(0) | nibble(1) << 4;
                out[fields.signs + TILE + row] = nibble(2) | nibble(3) << 4;
            }
            PackedType::Iq1M => {
                indices(&bytes[run * 4..][..4]);
                for half in 0..2 {
                    // The direction is set where it is upwards.
                    out[fields.signs + half * TILE + row] = bytes[32 + run * 2 + half] ^ 0x88;
                }
                let scales = half_word(bytes, 48 + run / 2 * 2) >> (run % 2 * 6);
                out[fields.scales + row] = (scales & 7 | (scales >> 3 & 7) << 4) as u8;
            }
            _ => {
                indices(&bytes[2 + run * 8..][..4]);
                put_word(out, fields.signs, row, word(bytes, 6 + run * 8));
            }
        }
    }
}

/// 16 bits.
fn half_word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Puts 32 bits of `row` to those of the other rows at `at`.
fn put_word(out: &mut [u8], at: usize, row: usize, word: u32) {
    out[at + row * 4..][..4].copy_from_slice(&word.to_le_bytes());
}

/// Puts the signs of four octets of `row` to those of the other rows at `at`.
fn put_signs(signs: &[u8], at: usize, row: usize, out: &mut [u8]) {
    for (l, signs) in signs.iter().enumerate() {
        out[at + l * TILE + row] = *signs;
    }
}

/// Packs a block of TQ2_0.
pub fn put_tq2_0(bytes: &[u8], row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&bytes[64..66]);
    put_pairs(&bytes[..64], row, CODEBOOK_HEADER, TQ2_PART, out);
}

/// Packs a block of TQ1_0: other digits share a byte than in the file.
pub fn put_tq1_0(bytes: &[u8], row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&bytes[52..54]);
    let mut digits = [0; 256];
    let mut places = digits.iter_mut();
    for (run, count) in [(&bytes[..32], 5), (&bytes[32..48], 5), (&bytes[48..52], 4)] {
        let mut power = 1u8;
        for _ in 0..count {
            for (byte, digit) in run.iter().zip(&mut places) {
                *digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
            }
            power = power.wrapping_mul(3);
        }
    }
    for line in 0..TQ1_LINES {
        for i in 0..4 {
            let digit = |n: usize| digits.get(line * 20 + n * 4 + i).copied().unwrap_or(0);
            let number = (0..5).fold(0, |number, n| number * 3 + digit(n));
            // The fraction of 3^5, rounded up to whole 256ths.
            out[CODEBOOK_HEADER + line * 64 + row * 4 + i] = (number * 256).div_ceil(243) as u8;
        }
    }
}
