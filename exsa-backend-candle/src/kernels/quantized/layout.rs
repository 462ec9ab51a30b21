//! How packed weights lie in memory.
//!
//! A tile is 16 output rows over the whole width `k`; everything that a pass over it needs lies in one linear
//! stream of *super-blocks*, 64 or 256 values wide, because several streams side by side cost a third of the
//! memory bandwidth. Within a super-block, 64 bytes are 16 rows × 4 consecutive values of `k`: one 512-bit
//! operand of a 4-way byte dot product. Weights are unsigned; what that adds is taken off through the sums of
//! the activations.
//!
//! | kind | super-block | bytes | content, per 16 rows |
//! |---|---|---|---|
//! | Q8_0 | 64 | 1088 | `d` of two blocks (2×16 f16), 1024 bytes `q + 128` |
//! | Q4_0 | 64 | 576 | `d` of two blocks, 512 bytes: first block in the low nibbles, second in the high ones |
//! | Q5_0 | 64 | 704 | the same, then 16 × 64 bits: the fifth bits |
//! | Q4_K | 256 | 2368 | `d`, `dmin` (2×16 f16), then 4 × (512 bytes nibbles, 2×16 scales, 16×2 mins) |
//! | Q5_K | 256 | 2880 | the same, each of the 4 with 16 × 64 fifth bits behind it |
//! | Q6_K | 256 | 3392 | `d` (16 f16, padded to 64), then 4 × (512 low nibbles, 256 bytes of high bit pairs, 2×16×2 scales) |

use exsa_core::gguf::GgmlType;
#[cfg(test)]
use half::f16;

/// Rows of a tile.
pub const TILE: usize = 16;

// Parts of a super-block, in bytes: where each begins, and how long the whole is.

/// Scales of the super-block in f16, one or two for each row, in front of everything else.
pub const HEADER: usize = 64;

/// 32 values of each row as bytes, or 64 as nibbles: the first 32 in the low ones, the others in the high
/// ones.
pub const QUANTS: usize = 512;

/// The fifth bits of 64 values of each row.
const FIFTHS: usize = 128;

/// Q8_0: the whole.
pub const Q8_0_BYTES: usize = HEADER + 2 * QUANTS;

/// Q4_0: the whole.
pub const Q4_0_BYTES: usize = HEADER + QUANTS;

/// Q5_0: the fifth bits.
pub const Q5_0_FIFTHS: usize = HEADER + QUANTS;

/// Q5_0: the whole.
pub const Q5_0_BYTES: usize = Q5_0_FIFTHS + FIFTHS;

/// Q4_K and Q5_K, within one of the four parts: scales of the first and of the second 32 values, `[2][TILE]`.
pub const K_SCALES: usize = QUANTS;

/// Q4_K and Q5_K, within a part: mins, `[TILE][2]`.
pub const K_MINS: usize = K_SCALES + 2 * TILE;

/// Q4_K: a part.
pub const Q4K_PART: usize = K_MINS + 2 * TILE;

/// Q5_K, within a part: the fifth bits.
pub const Q5K_FIFTHS: usize = Q4K_PART;

/// Q5_K: a part.
pub const Q5K_PART: usize = Q5K_FIFTHS + FIFTHS;

/// Q6_K, within a part: pairs of high bits.
pub const Q6K_HIGH: usize = QUANTS;

/// Q6_K, within a part: scales of 16 values, `[2][TILE][2]`.
pub const Q6K_SCALES: usize = Q6K_HIGH + QUANTS / 2;

/// Q6_K: a part.
pub const Q6K_PART: usize = Q6K_SCALES + 4 * TILE;

/// Q4_K: the whole.
pub const Q4K_BYTES: usize = HEADER + 4 * Q4K_PART;

/// Q5_K: the whole.
pub const Q5K_BYTES: usize = HEADER + 4 * Q5K_PART;

/// Q6_K: the whole.
pub const Q6K_BYTES: usize = HEADER + 4 * Q6K_PART;

/// Packed types: quantizations that have a packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are ggml's")]
pub enum PackedType {
    Q8_0,
    Q4_0,
    Q5_0,
    Q4K,
    Q5K,
    Q6K,
}

impl PackedType {
    /// The packed form of a type, if it has one.
    pub fn of(dtype: GgmlType) -> Option<Self> {
        Some(match dtype {
            GgmlType::Q8_0 => Self::Q8_0,
            GgmlType::Q4_0 => Self::Q4_0,
            GgmlType::Q5_0 => Self::Q5_0,
            GgmlType::Q4K => Self::Q4K,
            GgmlType::Q5K => Self::Q5K,
            GgmlType::Q6K => Self::Q6K,
            _ => return None,
        })
    }

    /// Values of `k` in a super-block.
    pub fn super_block(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 | Self::Q5_0 => 64,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a super-block of 16 rows.
    pub fn super_block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => Q8_0_BYTES,
            Self::Q4_0 => Q4_0_BYTES,
            Self::Q5_0 => Q5_0_BYTES,
            Self::Q4K => Q4K_BYTES,
            Self::Q5K => Q5K_BYTES,
            Self::Q6K => Q6K_BYTES,
        }
    }

    /// Values of `k` that share a scale of the activations: 32 or 256.
    pub fn activation_block(self) -> usize {
        if self.super_block() == 64 { 32 } else { 256 }
    }

    /// Zero point: the difference of unsigned weights from the real ones, where it is one number.
    pub fn offset(self) -> i32 {
        match self {
            Self::Q8_0 => 128,
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q4K | Self::Q5K | Self::Q6K => 0,
        }
    }

    /// Bytes of a block in the file, and values in it.
    pub fn file_block(self) -> (usize, usize) {
        match self {
            Self::Q8_0 => (34, 32),
            Self::Q4_0 => (18, 32),
            Self::Q5_0 => (22, 32),
            Self::Q4K => (144, 256),
            Self::Q5K => (176, 256),
            Self::Q6K => (210, 256),
        }
    }
}

/// Packs one super-block of up to 16 rows: `blocks(row, i)` gives the `i`-th block of the super-block in that
/// row, as in the file, or `None` beyond the matrix. `out` is zero and of `super_block_bytes`.
///
/// Bytes move by fours: the four values of a row that lie side by side in the file do so in the super-block.
pub fn pack_super_block<'a>(
    kind: PackedType,
    blocks: impl Fn(usize, usize) -> Option<&'a [u8]>,
    out: &mut [u8],
) {
    for row in 0..TILE {
        match kind {
            PackedType::Q8_0 => {
                for second in 0..2 {
                    if let Some(bytes) = blocks(row, second) {
                        put_q8_0(bytes, row, second, out);
                    }
                }
            }
            PackedType::Q4_0 | PackedType::Q5_0 => {
                for second in 0..2 {
                    if let Some(bytes) = blocks(row, second) {
                        put_q45_0(kind, bytes, row, second, out);
                    }
                }
            }
            PackedType::Q4K | PackedType::Q5K => {
                if let Some(bytes) = blocks(row, 0) {
                    put_q45k(kind, bytes, row, out);
                }
            }
            PackedType::Q6K => {
                if let Some(bytes) = blocks(row, 0) {
                    put_q6k(bytes, row, out);
                }
            }
        }
    }
}

/// Place of value `i` (of 32) of `row` among the 512 bytes of a 32-value block.
#[cfg(test)]
fn place(row: usize, i: usize) -> usize {
    i / 4 * 64 + row * 4 + i % 4
}

/// Four bytes, a value each.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Adds the bits of `word` to the place of values `4 * group..` of `row` in a block at `at`.
fn put(out: &mut [u8], at: usize, row: usize, group: usize, word: u32) {
    let at = at + group * 64 + row * 4;
    let old = self::word(out, at);
    out[at..at + 4].copy_from_slice(&(old | word).to_le_bytes());
}

/// Adds the fifth bits of four values, bits 0 to 3 of `bits`, to the masks at `at`: 64 bits for each 64 bytes of a plane.
fn put_fifth(out: &mut [u8], at: usize, row: usize, group: usize, bits: u32) {
    out[at + group * 8 + row / 2] |= (bits as u8 & 15) << (row % 2 * 4);
}

fn put_q8_0(bytes: &[u8], row: usize, second: usize, out: &mut [u8]) {
    out[second * 32 + row * 2..][..2].copy_from_slice(&bytes[..2]);
    for group in 0..8 {
        put(out, HEADER + second * QUANTS, row, group, word(bytes, 2 + group * 4) ^ 0x8080_8080);
    }
}

fn put_q45_0(kind: PackedType, bytes: &[u8], row: usize, second: usize, out: &mut [u8]) {
    out[second * 32 + row * 2..][..2].copy_from_slice(&bytes[..2]);
    let fifth = if kind == PackedType::Q5_0 { Some(word(bytes, 2)) } else { None };
    let nibbles = &bytes[bytes.len() - 16..];
    for group in 0..8 {
        // The first half of a block is in the low nibbles of the file.
        let q = word(nibbles, group % 4 * 4) >> (group / 4 * 4) & 0x0f0f_0f0f;
        put(out, HEADER, row, group, q << (second * 4));
        if let Some(bits) = fifth {
            put_fifth(out, Q5_0_FIFTHS + second * 64, row, group, bits >> (group * 4));
        }
    }
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

/// For tests: dequantizes one super-block of one row of a packed tile; `out` has the length of a super-block.
#[cfg(test)]
pub fn unpack_super_block(kind: PackedType, super_block: &[u8], row: usize, out: &mut [f32]) {
    let half = |at: usize| f16::from_le_bytes([super_block[at], super_block[at + 1]]).to_f32();
    let bit = |masks: &[u8], plane: usize, at: usize| masks[plane * 64 + at / 8] >> (at % 8) & 1;
    match kind {
        PackedType::Q8_0 | PackedType::Q4_0 | PackedType::Q5_0 => {
            for (i, value) in out.iter_mut().enumerate() {
                let (second, at) = (i / 32, place(row, i % 32));
                let q = match kind {
                    PackedType::Q8_0 => super_block[HEADER + second * QUANTS + at],
                    PackedType::Q4_0 => super_block[HEADER + at] >> (second * 4) & 15,
                    _ => {
                        super_block[HEADER + at] >> (second * 4) & 15
                            | bit(&super_block[Q5_0_FIFTHS..], second, at) << 4
                    }
                };
                *value = half(second * 32 + row * 2) * (i32::from(q) - kind.offset()) as f32;
            }
        }
        PackedType::Q4K | PackedType::Q5K => {
            let step = if kind == PackedType::Q5K { Q5K_PART } else { Q4K_PART };
            let (d, dmin) = (half(row * 2), half(32 + row * 2));
            for (i, value) in out.iter_mut().enumerate() {
                let (sub, at) = (i / 32, place(row, i % 32));
                let part = &super_block[HEADER + sub / 2 * step..][..step];
                let mut q = part[at] >> (sub % 2 * 4) & 15;
                if kind == PackedType::Q5K {
                    q |= bit(&part[Q5K_FIFTHS..], sub % 2, at) << 4;
                }
                let scale = d * f32::from(part[K_SCALES + sub % 2 * TILE + row]);
                *value = scale * f32::from(q) - dmin * f32::from(part[K_MINS + row * 2 + sub % 2]);
            }
        }
        PackedType::Q6K => {
            let d = half(row * 2);
            for (i, value) in out.iter_mut().enumerate() {
                let (sub, at) = (i / 32, place(row, i % 32));
                let part = &super_block[HEADER + sub / 2 * Q6K_PART..][..Q6K_PART];
                let plane = sub % 2;
                let low = part[at] >> (plane * 4) & 15;
                let high = part[Q6K_HIGH + at % 256] >> (plane * 4 + at / 256 * 2) & 3;
                let scale = part[Q6K_SCALES + plane * 32 + row * 2 + i / 16 % 2] as i8;
                *value = d * f32::from(scale) * (i32::from(low | high << 4) - 32) as f32;
            }
        }
    }
}
