//! How packed weights lie in memory.
//!
//! A tile is 16 output rows over the whole width `k`; everything that a pass over it needs lies in one linear stream
//! of *units*, 64 or 256 values wide, because several streams side by side cost a third of the memory bandwidth. Within
//! a unit, 64 bytes are 16 rows × 4 consecutive values of `k`: one 512-bit operand of a 4-way byte dot product.
//! Weights are unsigned; what that adds is taken off through the sums of the activations.
//!
//! | kind | unit | bytes | content, per 16 rows |
//! |---|---|---|---|
//! | Q8_0 | 64 | 1088 | `d` of two blocks (2×16 f16), 1024 bytes `q + 128` |
//! | Q4_0 | 64 | 576 | `d` of two blocks, 512 bytes: first block in the low nibbles, second in the high ones |
//! | Q5_0 | 64 | 704 | the same, then 16 × 64 bits: the fifth bits |
//! | Q4_K | 256 | 2368 | `d`, `dmin` (2×16 f16), then 4 × (512 bytes nibbles, 2×16 scales, 16×2 mins) |
//! | Q5_K | 256 | 2880 | the same, each of the 4 with 16 × 64 fifth bits behind it |
//! | Q6_K | 256 | 3392 | `d` (16 f16, padded to 64), then 4 × (512 low nibbles, 256 bytes of high bit pairs, 2×16×2 scales) |

use exsa_core::gguf::GgmlType;
use half::f16;

/// Rows of a tile.
pub const TILE: usize = 16;

/// Quantizations that have a packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are ggml's")]
pub enum Kind {
    Q8_0,
    Q4_0,
    Q5_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
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

    /// Values of `k` in a unit.
    pub fn unit(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 | Self::Q5_0 => 64,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a unit of 16 rows.
    pub fn unit_bytes(self) -> usize {
        match self {
            Self::Q8_0 => 1088,
            Self::Q4_0 => 576,
            Self::Q5_0 => 704,
            Self::Q4K => 2368,
            Self::Q5K => 2880,
            Self::Q6K => 3392,
        }
    }

    /// Values of `k` that share a scale of the activations: 32 or 256.
    pub fn activation_block(self) -> usize {
        if self.unit() == 64 { 32 } else { 256 }
    }

    /// What unsigned weights are greater by than the real ones, where it is one number.
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

/// One block of a row as plain numbers: `value(i) = scale(i) * q(i) - min(i)`.
struct Block {
    /// Unsigned, `0..=255`, with the kind's offset in it.
    q: [u8; 256],
    d: f16,
    dmin: f16,
    /// Per 16 values for Q6_K (signed), per 32 otherwise.
    scales: [i8; 16],
    mins: [u8; 8],
}

impl Block {
    fn read(kind: Kind, bytes: &[u8]) -> Self {
        let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut block = Self { q: [0; 256], d: f16::ZERO, dmin: f16::ZERO, scales: [0; 16], mins: [0; 8] };
        match kind {
            Kind::Q8_0 => {
                block.d = half(0);
                for i in 0..32 {
                    block.q[i] = bytes[2 + i] ^ 0x80;
                }
            }
            Kind::Q4_0 => {
                block.d = half(0);
                for i in 0..16 {
                    block.q[i] = bytes[2 + i] & 15;
                    block.q[i + 16] = bytes[2 + i] >> 4;
                }
            }
            Kind::Q5_0 => {
                block.d = half(0);
                let high = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
                for i in 0..16 {
                    block.q[i] = (bytes[6 + i] & 15) | ((high >> i & 1) as u8 * 16);
                    block.q[i + 16] = (bytes[6 + i] >> 4) | ((high >> (i + 16) & 1) as u8 * 16);
                }
            }
            Kind::Q4K | Kind::Q5K => {
                (block.d, block.dmin) = (half(0), half(2));
                let packed = &bytes[4..16];
                for j in 0..8 {
                    let (scale, min) = if j < 4 {
                        (packed[j] & 63, packed[j + 4] & 63)
                    } else {
                        (
                            packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
                            packed[j + 4] >> 4 | packed[j] >> 6 << 4,
                        )
                    };
                    (block.scales[j], block.mins[j]) = (scale as i8, min);
                }
                let (high, low) = match kind {
                    Kind::Q5K => (Some(&bytes[16..48]), &bytes[48..176]),
                    _ => (None, &bytes[16..144]),
                };
                for i in 0..256 {
                    let (sub, within) = (i / 32, i % 32);
                    let nibble = low[sub / 2 * 32 + within] >> (sub % 2 * 4) & 15;
                    let fifth = high.map_or(0, |high| high[within] >> sub & 1);
                    block.q[i] = nibble | fifth << 4;
                }
            }
            Kind::Q6K => {
                block.d = half(208);
                for j in 0..16 {
                    block.scales[j] = bytes[192 + j] as i8;
                }
                for i in 0..256 {
                    let (half, quarter, within) = (i / 128, i / 32 % 4, i % 32);
                    let low = bytes[half * 64 + quarter % 2 * 32 + within] >> (quarter / 2 * 4) & 15;
                    let high = bytes[128 + half * 32 + within] >> (quarter * 2) & 3;
                    block.q[i] = low | high << 4;
                }
            }
        }
        block
    }
}

/// Packs one unit of up to 16 rows: `blocks(row, i)` gives the `i`-th block of the unit in that row, as in the file, or
/// `None` beyond the matrix. `out` is zero and of `unit_bytes`.
pub fn pack_unit<'a>(kind: Kind, blocks: impl Fn(usize, usize) -> Option<&'a [u8]>, out: &mut [u8]) {
    for row in 0..TILE {
        match kind {
            Kind::Q8_0 | Kind::Q4_0 | Kind::Q5_0 => {
                for second in 0..2 {
                    if let Some(bytes) = blocks(row, second) {
                        put_small(kind, &Block::read(kind, bytes), row, second, out);
                    }
                }
            }
            Kind::Q4K | Kind::Q5K => {
                if let Some(bytes) = blocks(row, 0) {
                    put_q45k(kind, &Block::read(kind, bytes), row, out);
                }
            }
            Kind::Q6K => {
                if let Some(bytes) = blocks(row, 0) {
                    put_q6k(&Block::read(kind, bytes), row, out);
                }
            }
        }
    }
}

/// Place of value `i` (of 32) of `row` among the 512 bytes of a 32-value block.
fn place(row: usize, i: usize) -> usize {
    i / 4 * 64 + row * 4 + i % 4
}

fn put_small(kind: Kind, block: &Block, row: usize, second: usize, out: &mut [u8]) {
    out[second * 32 + row * 2..][..2].copy_from_slice(&block.d.to_le_bytes());
    for i in 0..32 {
        let (at, q) = (place(row, i), block.q[i]);
        if kind == Kind::Q8_0 {
            out[64 + second * 512 + at] = q;
        } else {
            out[64 + at] |= (q & 15) << (second * 4);
            if kind == Kind::Q5_0 {
                put_bit(&mut out[576..], second, at, q >> 4);
            }
        }
    }
}

/// Fifth bits: 2 × 8 masks of 64 bits, one for each 64 bytes of a nibble plane.
fn put_bit(masks: &mut [u8], plane: usize, at: usize, bit: u8) {
    masks[plane * 64 + at / 8] |= bit << (at % 8);
}

fn put_q45k(kind: Kind, block: &Block, row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&block.d.to_le_bytes());
    out[32 + row * 2..][..2].copy_from_slice(&block.dmin.to_le_bytes());
    let step = if kind == Kind::Q5K { 576 + 128 } else { 576 };
    for sub in 0..8 {
        let part = &mut out[64 + sub / 2 * step..][..step];
        for i in 0..32 {
            let (at, q) = (place(row, i), block.q[sub * 32 + i]);
            part[at] |= (q & 15) << (sub % 2 * 4);
            if kind == Kind::Q5K {
                put_bit(&mut part[576..], sub % 2, at, q >> 4);
            }
        }
        part[512 + sub % 2 * 16 + row] = block.scales[sub] as u8;
        part[544 + row * 2 + sub % 2] = block.mins[sub];
    }
}

fn put_q6k(block: &Block, row: usize, out: &mut [u8]) {
    out[row * 2..][..2].copy_from_slice(&block.d.to_le_bytes());
    for sub in 0..8 {
        let part = &mut out[64 + sub / 2 * 832..][..832];
        let plane = sub % 2;
        for i in 0..32 {
            let (at, q) = (place(row, i), block.q[sub * 32 + i]);
            part[at] |= (q & 15) << (plane * 4);
            // Two planes of eight 64-byte groups share four groups of bytes, two bits each.
            let shift = plane * 4 + at / 256 * 2;
            part[512 + at % 256] |= (q >> 4) << shift;
        }
        for h in 0..2 {
            part[768 + plane * 32 + row * 2 + h] = block.scales[sub * 2 + h] as u8;
        }
    }
}

/// For tests: dequantizes one unit of one row of a packed tile; `out` has the length of a unit.
#[cfg(test)]
pub fn unpack_unit(kind: Kind, unit: &[u8], row: usize, out: &mut [f32]) {
    let half = |at: usize| f16::from_le_bytes([unit[at], unit[at + 1]]).to_f32();
    let bit = |masks: &[u8], plane: usize, at: usize| masks[plane * 64 + at / 8] >> (at % 8) & 1;
    match kind {
        Kind::Q8_0 | Kind::Q4_0 | Kind::Q5_0 => {
            for (i, value) in out.iter_mut().enumerate() {
                let (second, at) = (i / 32, place(row, i % 32));
                let q = match kind {
                    Kind::Q8_0 => unit[64 + second * 512 + at],
                    Kind::Q4_0 => unit[64 + at] >> (second * 4) & 15,
                    _ => unit[64 + at] >> (second * 4) & 15 | bit(&unit[576..], second, at) << 4,
                };
                *value = half(second * 32 + row * 2) * (i32::from(q) - kind.offset()) as f32;
            }
        }
        Kind::Q4K | Kind::Q5K => {
            let step = if kind == Kind::Q5K { 576 + 128 } else { 576 };
            let (d, dmin) = (half(row * 2), half(32 + row * 2));
            for (i, value) in out.iter_mut().enumerate() {
                let (sub, at) = (i / 32, place(row, i % 32));
                let part = &unit[64 + sub / 2 * step..][..step];
                let mut q = part[at] >> (sub % 2 * 4) & 15;
                if kind == Kind::Q5K {
                    q |= bit(&part[576..], sub % 2, at) << 4;
                }
                let scale = d * f32::from(part[512 + sub % 2 * 16 + row]);
                *value = scale * f32::from(q) - dmin * f32::from(part[544 + row * 2 + sub % 2]);
            }
        }
        Kind::Q6K => {
            let d = half(row * 2);
            for (i, value) in out.iter_mut().enumerate() {
                let (sub, at) = (i / 32, place(row, i % 32));
                let part = &unit[64 + sub / 2 * 832..][..832];
                let plane = sub % 2;
                let low = part[at] >> (plane * 4) & 15;
                let high = part[512 + at % 256] >> (plane * 4 + at / 256 * 2) & 3;
                let scale = part[768 + plane * 32 + row * 2 + i / 16 % 2] as i8;
                *value = d * f32::from(scale) * (i32::from(low | high << 4) - 32) as f32;
            }
        }
    }
}
