//! From blocks of a file to super-blocks of a tile.

use super::*;

/// Packs one super-block of up to 16 rows: `blocks(row, i)` gives the `i`-th block of the super-block in that
/// row, as in the file, or `None` beyond the matrix. `out` is zero and of `super_block_bytes`.
///
/// Bytes move by fours: the four values of a row that lie side by side in the file do so in the super-block.
pub fn pack_super_block<'a>(
    kind: PackedType,
    blocks: impl Fn(usize, usize) -> Option<&'a [u8]>,
    out: &mut [u8],
) {
    let per_super_block = kind.super_block() / kind.file_block().1;
    for row in 0..TILE {
        for i in 0..per_super_block {
            let Some(bytes) = blocks(row, i) else { continue };
            match kind {
                PackedType::Q8_0 => put_q8_0(bytes, row, i, out),
                PackedType::Q4_0 | PackedType::Iq4Nl => put_nibbles(&bytes[2..], HEADER, row, i, out),
                PackedType::Q4_1 => put_nibbles(&bytes[4..], HEADER, row, i, out),
                PackedType::Q5_0 => put_fifths_and_nibbles(&bytes[2..], row, i, out),
                PackedType::Q5_1 => put_fifths_and_nibbles(&bytes[4..], row, i, out),
                PackedType::Mxfp4 => {
                    out[QUANTS + i * TILE + row] = bytes[0];
                    put_nibbles(&bytes[1..], 0, row, i, out);
                }
                PackedType::Q4K | PackedType::Q5K => put_q45k(kind, bytes, row, out),
                PackedType::Q6K => put_q6k(bytes, row, out),
                PackedType::Q2K => put_q2k(bytes, row, out),
                PackedType::Q3K => put_q3k(bytes, row, out),
                PackedType::Iq4Xs => put_iq4xs(bytes, row, out),
                PackedType::Tq1_0 => put_tq1_0(bytes, row, out),
                PackedType::Tq2_0 => put_tq2_0(bytes, row, out),
                _ => put_codebook(kind, bytes, row, out),
            }
            if let PackedType::Q4_0
            | PackedType::Q5_0
            | PackedType::Iq4Nl
            | PackedType::Q4_1
            | PackedType::Q5_1 = kind
            {
                out[i * 32 + row * 2..][..2].copy_from_slice(&bytes[..2]);
            }
            if let PackedType::Q4_1 | PackedType::Q5_1 = kind {
                let mins = kind.super_block_bytes() - HEADER;
                out[mins + i * 32 + row * 2..][..2].copy_from_slice(&bytes[2..4]);
            }
        }
    }
}

/// Four bytes, a value each.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Adds the bits of `word` to the place of values `4 * group..` of `row` in a block at `at`.
fn put(out: &mut [u8], at: usize, row: usize, group: usize, word: u32) {
    let at = at + group * 64 + row * 4;
    let old = self::word(out, at);
    out[at..at + 4].copy_from_slice(&(old | word).to_le_bytes());
}

/// Adds the fifth bits of four values, bits 0 to 3 of `bits`, to the masks at `at`: 64 bits for each 64 bytes
/// of a plane.
fn put_fifth(out: &mut [u8], at: usize, row: usize, group: usize, bits: u32) {
    out[at + group * 8 + row / 2] |= (bits as u8 & 15) << (row % 2 * 4);
}

fn put_q8_0(bytes: &[u8], row: usize, second: usize, out: &mut [u8]) {
    out[second * 32 + row * 2..][..2].copy_from_slice(&bytes[..2]);
    for group in 0..8 {
        put(out, HEADER + second * QUANTS, row, group, word(bytes, 2 + group * 4) ^ 0x8080_8080);
    }
}

/// A block of 32 nibbles, as bytes in the file whose low nibbles are the first half, into plane `second` at
/// `at`.
fn put_nibbles(nibbles: &[u8], at: usize, row: usize, second: usize, out: &mut [u8]) {
    for group in 0..8 {
        let q = word(nibbles, group % 4 * 4) >> (group / 4 * 4) & 0x0f0f_0f0f;
        put(out, at, row, group, q << (second * 4));
    }
}

/// The same with 32 fifth bits before the nibbles.
fn put_fifths_and_nibbles(bytes: &[u8], row: usize, second: usize, out: &mut [u8]) {
    let bits = word(bytes, 0);
    for group in 0..8 {
        put_fifth(out, Q5_0_FIFTHS + second * 64, row, group, bits >> (group * 4));
    }
    put_nibbles(&bytes[4..], HEADER, row, second, out);
}

fn put_q45k(kind: PackedType, bytes: &[u8], row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&bytes[..2]);
    out[32 + row * 2..][..2].copy_from_slice(&bytes[2..4]);
    let (step, nibbles) =
        if kind == PackedType::Q5K { (Q5K_PART, &bytes[48..]) } else { (Q4K_PART, &bytes[16..]) };
    for part in 0..4 {
        let at = 64 + part * step;
        for group in 0..8 {
            // Two planes of nibbles, as in the file.
            put(out, at, row, group, word(nibbles, part * 32 + group * 4));
        }
        for plane in 0..2 {
            let sub = part * 2 + plane;
            let (scale, min) = scale_and_min(&bytes[4..16], sub);
            out[at + K_SCALES + plane * TILE + row] = scale;
            out[at + K_MINS + row * 2 + plane] = min;
            if kind == PackedType::Q5K {
                for group in 0..8 {
                    let x = word(bytes, 16 + group * 4) >> sub & 0x0101_0101;
                    put_fifth(out, at + Q5K_FIFTHS + plane * 64, row, group, x | x >> 7 | x >> 14 | x >> 21);
                }
            }
        }
    }
}

/// Scale and min of 32 values, six bits each, from the twelve bytes that hold eight of both.
fn scale_and_min(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

fn put_q6k(bytes: &[u8], row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&bytes[208..210]);
    for sub in 0..8 {
        let (half, quarter, plane) = (sub / 4, sub % 4, sub % 2);
        let at = HEADER + sub / 2 * Q6K_PART;
        for group in 0..8 {
            let low = word(bytes, half * 64 + quarter % 2 * 32 + group * 4) >> (quarter / 2 * 4);
            put(out, at, row, group, (low & 0x0f0f_0f0f) << (plane * 4));
            // Two planes of eight groups share four groups of bytes, two bits each.
            let high = word(bytes, 128 + half * 32 + group * 4) >> (quarter * 2) & 0x0303_0303;
            put(out, at + Q6K_HIGH, row, group % 4, high << (plane * 4 + group / 4 * 2));
        }
        for h in 0..2 {
            out[at + Q6K_SCALES + plane * 32 + row * 2 + h] = bytes[192 + sub * 2 + h];
        }
    }
}

fn put_q2k(bytes: &[u8], row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&bytes[80..82]);
    out[32 + row * 2..][..2].copy_from_slice(&bytes[82..84]);
    put_pairs(&bytes[16..80], row, HEADER, Q2K_PART, out);
    for (sub, scale) in bytes[..16].iter().enumerate() {
        put_scale16(*scale, row, sub, HEADER + Q2K_SCALES, Q2K_PART, out);
    }
}

fn put_q3k(bytes: &[u8], row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&bytes[108..110]);
    put_pairs(&bytes[32..96], row, Q3K_HEADER, Q3K_PART, out);
    for sub in 0..16 {
        let scale = scale_of_q3k(&bytes[96..108], sub) as u8;
        put_scale16(scale, row, sub, Q3K_HEADER + Q3K_SCALES, Q3K_PART, out);
    }
    for run in 0..8 {
        for group in 0..8 {
            let high = word(bytes, group * 4) >> run & 0x0101_0101;
            let (part, group) = (run / 2, run % 2 * 8 + group);
            put(out, Q3K_HEADER + part * Q3K_PART + Q3K_HIGH, row, group % 2, high << (group / 2));
        }
    }
}

/// The pairs of bits of 256 values, of which the file has 32 in a pair of the bits of 32 bytes, twice four
/// times.
pub(super) fn put_pairs(pairs: &[u8], row: usize, at: usize, step: usize, out: &mut [u8]) {
    for run in 0..8 {
        for group in 0..8 {
            let q = word(pairs, run / 4 * 32 + group * 4) >> (run % 4 * 2) & 0x0303_0303;
            let (part, group) = (run / 2, run % 2 * 8 + group);
            put(out, at + part * step, row, group % 4, q << (group / 4 * 2));
        }
    }
}

/// A byte for 16 values, of which a part has four.
fn put_scale16(scale: u8, row: usize, sub: usize, at: usize, step: usize, out: &mut [u8]) {
    out[at + sub / 4 * step + sub % 4 / 2 * 32 + row * 2 + sub % 2] = scale;
}

/// Scale of 16 values, six bits of the twelve bytes that hold sixteen of them, less 32.
fn scale_of_q3k(packed: &[u8], sub: usize) -> i8 {
    let low = packed[sub % 8] >> (sub / 8 * 4) & 15;
    let high = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}

fn put_iq4xs(bytes: &[u8], row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&bytes[..2]);
    let high_bits = u16::from_le_bytes([bytes[2], bytes[3]]);
    for sub in 0..8 {
        let at = HEADER + sub / 2 * IQ4XS_PART;
        let low = bytes[4 + sub / 2] >> (sub % 2 * 4) & 15;
        let high = (high_bits >> (sub * 2)) as u8 & 3;
        out[at + IQ4XS_SCALES + row * 2 + sub % 2] = ((low | high << 4) as i8 - 32) as u8;
        put_nibbles(&bytes[8 + sub * 16..][..16], at, row, sub % 2, out);
    }
}
