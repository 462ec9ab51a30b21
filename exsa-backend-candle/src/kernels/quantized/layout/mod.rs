//! How packed weights lie in memory.
//!
//! A tile is 16 output rows over the whole width `k`; everything that a pass over it needs lies in one linear
//! stream of *super-blocks*, 64 or 256 values wide, because several streams side by side cost a third of the
//! memory bandwidth. Within a super-block, 64 bytes are 16 rows × 4 consecutive values of `k`: one 512-bit
//! operand of a 4-way byte dot product. Weights are unsigned; what that adds is taken off through the sums of
//! the activations.
//!
//! | type | super-block | bytes | content, per 16 rows |
//! |---|---|---|---|
//! | Q8_0 | 64 | 1088 | `d` of two blocks (2×16 f16), 1024 bytes `q + 128` |
//! | Q4_0, IQ4_NL | 64 | 576 | `d` of two blocks, 512 bytes: first block in the low nibbles, second in the high ones |
//! | Q5_0 | 64 | 704 | as Q4_0, then 16 × 64 bits: the fifth bits |
//! | Q4_1, Q5_1 | 64 | 640, 768 | as Q4_0 and Q5_0, then `m` of two blocks (2×16 f16) |
//! | MXFP4 | 64 | 544 | 512 bytes of nibbles as Q4_0, then the exponents of two blocks (2×16 bytes) |
//! | Q4_K | 256 | 2368 | `d`, `dmin` (2×16 f16), then 4 × (512 bytes nibbles, 2×16 scales, 16×2 mins) |
//! | Q5_K | 256 | 2880 | the same, each of the 4 with 16 × 64 fifth bits behind it |
//! | Q6_K | 256 | 3392 | `d` (16 f16, padded to 64), then 4 × (512 low nibbles, 256 bytes of high bit pairs, 2×16×2 scales) |
//! | Q2_K | 256 | 1344 | `d`, `dmin` (2×16 f16), then 4 × (256 bytes of bit pairs, 2×16×2 bytes: scale and min in a nibble each) |
//! | Q3_K | 256 | 1824 | `d` (16 f16), then 4 × (256 bytes of bit pairs, 128 bytes of third bits, 2×16×2 scales) |
//! | IQ4_XS | 256 | 2240 | `d` (16 f16, padded to 64), then 4 × (512 bytes of nibbles, 16×2 scales) |
//! | TQ2_0 | 256 | 1056 | `d` (16 f16), then 4 × 256 bytes of bit pairs |
//! | IQ3_XXS | 256 | 1568 | `d` (16 f16), then 8 × (8×16 indices, 16 words of four sign codes and a scale) |
//! | IQ3_S | 256 | 1760 | `d` (16 f16), 4×16 pairs of scales, then 8 × (8×16 indices, 4×16 bytes of signs, 16 bytes of ninth bits) |
//! | IQ2_XXS | 256 | 1056 | `d` (16 f16), then 8 × (4×16 indices, 16 words as of IQ3_XXS) |
//! | IQ2_XS | 256 | 1184 | as IQ2_XXS, each of the 8 with 16 bytes behind it: ninth bits, and the scale of the second 16 values |
//! | IQ2_S | 256 | 1312 | `d` (16 f16), then 8 × (4×16 indices, 4×16 bytes of signs, 16 of upper index bits, 16 pairs of scales) |
//! | IQ1_S | 256 | 800 | `d` (16 f16), then 8 × (4×16 indices, 2×16×2 nibbles: three index bits, and one of direction and scale) |
//! | IQ1_M | 256 | 928 | `d` (16 f16), then 8 × (4×16 indices, 2×16×2 nibbles: three index bits and direction, 16 pairs of scales) |
//! | TQ1_0 | 256 | 864 | `d` (16 f16), then 13 × 64 bytes of five base-3 digits |

mod codebook;
mod pack;

pub use codebook::*;
pub use pack::pack_super_block;

use exsa_core::gguf::GgmlType;

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

/// Q4_0 and IQ4_NL: the whole. Q4_1: the mins.
pub const Q4_0_BYTES: usize = HEADER + QUANTS;

/// Q5_0 and Q5_1: the fifth bits.
pub const Q5_0_FIFTHS: usize = HEADER + QUANTS;

/// Q5_0: the whole. Q5_1: the mins.
pub const Q5_0_BYTES: usize = Q5_0_FIFTHS + FIFTHS;

/// Q4_1: the whole.
pub const Q4_1_BYTES: usize = Q4_0_BYTES + HEADER;

/// Q5_1: the whole.
pub const Q5_1_BYTES: usize = Q5_0_BYTES + HEADER;

/// MXFP4: the whole, without a header; the exponents follow the nibbles.
pub const MXFP4_BYTES: usize = QUANTS + 2 * TILE;

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

/// Q2_K and Q3_K, within a part: bit pairs of 64 values of each row. Bytes 64·j.. hold groups j, j + 4, j + 8
/// and j + 12, so that each pair of bits of the four lines is 16 values in order.
const PAIRS: usize = 256;

/// Q2_K, within a part: scales (low nibble) and mins (high nibble) of 16 values, `[2][TILE][2]`.
pub const Q2K_SCALES: usize = PAIRS;

/// Q2_K: a part.
pub const Q2K_PART: usize = Q2K_SCALES + 4 * TILE;

/// Q3_K: the header, `d` alone.
pub const Q3K_HEADER: usize = 2 * TILE;

/// Q3_K, within a part: third bits. Group `g` has bit `g / 2` of the bytes 64·(g mod 2)...
pub const Q3K_HIGH: usize = PAIRS;

/// Q3_K, within a part: signed scales of 16 values, `[2][TILE][2]`.
pub const Q3K_SCALES: usize = Q3K_HIGH + FIFTHS;

/// Q3_K: a part.
pub const Q3K_PART: usize = Q3K_SCALES + 4 * TILE;

/// IQ4_XS, within a part: signed scales of 32 values, `[TILE][2]`.
pub const IQ4XS_SCALES: usize = QUANTS;

/// IQ4_XS: a part.
pub const IQ4XS_PART: usize = IQ4XS_SCALES + 2 * TILE;

/// Q4_K: the whole.
pub const Q4K_BYTES: usize = HEADER + 4 * Q4K_PART;

/// Q5_K: the whole.
pub const Q5K_BYTES: usize = HEADER + 4 * Q5K_PART;

/// Q6_K: the whole.
pub const Q6K_BYTES: usize = HEADER + 4 * Q6K_PART;

/// Q2_K: the whole.
pub const Q2K_BYTES: usize = HEADER + 4 * Q2K_PART;

/// Q3_K: the whole.
pub const Q3K_BYTES: usize = Q3K_HEADER + 4 * Q3K_PART;

/// IQ4_XS: the whole.
pub const IQ4XS_BYTES: usize = HEADER + 4 * IQ4XS_PART;

/// Values of IQ4_NL and IQ4_XS by nibble, 128 too great.
pub const IQ4_LEVELS: [u8; 16] = raised(exsa_quant::codebook::IQ4_VALUES, 128);

/// Values of MXFP4 by nibble, doubled, and then 12 too great: those of 4-bit floats (E2M1) are halves.
pub const MXFP4_LEVELS: [u8; 16] = raised(exsa_quant::codebook::MXFP4_VALUES, 12);

/// Values of a codebook plus `offset`, unsigned.
const fn raised(values: [i8; 16], offset: i16) -> [u8; 16] {
    let mut levels = [0; 16];
    let mut i = 0;
    while i < 16 {
        levels[i] = (values[i] as i16 + offset) as u8;
        i += 1;
    }
    levels
}

/// Packed types: quantizations that have a packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are ggml's")]
pub enum PackedType {
    Q8_0,
    Q4_0,
    Q5_0,
    Q4_1,
    Q5_1,
    Iq4Nl,
    Mxfp4,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Xs,
    Tq2_0,
    Iq3Xxs,
    Iq3S,
    Iq2Xxs,
    Iq2Xs,
    Iq2S,
    Iq1S,
    Iq1M,
    Tq1_0,
}

impl PackedType {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Q8_0,
        Self::Q4_0,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q5_1,
        Self::Iq4Nl,
        Self::Mxfp4,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Xs,
        Self::Tq2_0,
        Self::Iq3Xxs,
        Self::Iq3S,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq2S,
        Self::Iq1S,
        Self::Iq1M,
        Self::Tq1_0,
    ];

    /// The packed form of a type, if it has one.
    pub fn of(dtype: GgmlType) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.dtype() == dtype)
    }

    /// The type in files.
    pub fn dtype(self) -> GgmlType {
        match self {
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q4_0 => GgmlType::Q4_0,
            Self::Q5_0 => GgmlType::Q5_0,
            Self::Q4_1 => GgmlType::Q4_1,
            Self::Q5_1 => GgmlType::Q5_1,
            Self::Iq4Nl => GgmlType::Iq4Nl,
            Self::Mxfp4 => GgmlType::Mxfp4,
            Self::Q2K => GgmlType::Q2K,
            Self::Q3K => GgmlType::Q3K,
            Self::Q4K => GgmlType::Q4K,
            Self::Q5K => GgmlType::Q5K,
            Self::Q6K => GgmlType::Q6K,
            Self::Iq4Xs => GgmlType::Iq4Xs,
            Self::Tq2_0 => GgmlType::Tq2_0,
            Self::Iq3Xxs => GgmlType::Iq3Xxs,
            Self::Iq3S => GgmlType::Iq3S,
            Self::Iq2Xxs => GgmlType::Iq2Xxs,
            Self::Iq2Xs => GgmlType::Iq2Xs,
            Self::Iq2S => GgmlType::Iq2S,
            Self::Iq1S => GgmlType::Iq1S,
            Self::Iq1M => GgmlType::Iq1M,
            Self::Tq1_0 => GgmlType::Tq1_0,
        }
    }

    /// Values of `k` in a super-block.
    pub fn super_block(self) -> usize {
        self.file_block().1.max(64)
    }

    /// Bytes of a super-block of 16 rows.
    pub fn super_block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => Q8_0_BYTES,
            Self::Q4_0 | Self::Iq4Nl => Q4_0_BYTES,
            Self::Q5_0 => Q5_0_BYTES,
            Self::Q4_1 => Q4_1_BYTES,
            Self::Q5_1 => Q5_1_BYTES,
            Self::Mxfp4 => MXFP4_BYTES,
            Self::Q2K => Q2K_BYTES,
            Self::Q3K => Q3K_BYTES,
            Self::Q4K => Q4K_BYTES,
            Self::Q5K => Q5K_BYTES,
            Self::Q6K => Q6K_BYTES,
            Self::Iq4Xs => IQ4XS_BYTES,
            Self::Tq1_0 => TQ1_BYTES,
            Self::Tq2_0 => TQ2_BYTES,
            _ => RunFields::of(self).super_block_bytes(),
        }
    }

    /// Values of `k` that share a scale of the activations: 32 or 256.
    pub fn activation_block(self) -> usize {
        if self.super_block() == 64 { 32 } else { 256 }
    }

    /// Zero point: the difference of unsigned weights from the real ones, where it is one number. Of types
    /// with a min for each block it is -1: what is then called zero-point terms are the sums of the
    /// activations.
    pub fn offset(self) -> i32 {
        match self {
            Self::Q8_0 | Self::Iq4Nl => 128,
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Mxfp4 => 12,
            Self::Q4_1 | Self::Q5_1 => -1,
            // Blocks of 256 values.
            _ => 0,
        }
    }

    /// Bytes of a block in the file, and values in it.
    pub fn file_block(self) -> (usize, usize) {
        let dtype = self.dtype();
        (dtype.block_bytes() as usize, dtype.block_len() as usize)
    }
}
