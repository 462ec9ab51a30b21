//! Three bits by lattice: groups of 4 magnitudes from a grid, with signs: IQ3_XXS, IQ3_S.
//!
//! | type | fields in order | value |
//! |---|---|---|
//! | IQ3_XXS | `d`; 64 grid indices of 8 bits; per 32 values a word with 4 sign codes of 7 bits and a scale of 4 | `d * (scale + 1/2) / 2 * magnitude` |
//! | IQ3_S | `d`; low 8 bits of 64 indices; their ninth bits; 32 bytes of signs; a scale of 4 bits per 32 values | `d * (2 * scale + 1) * magnitude` |

use super::iq2::signed;
use super::{SUPER_BLOCK, f16_at, u32_at};
use crate::codebook::{IQ3_S_GRID, IQ3_XXS_GRID, SIGNS};

pub(crate) fn xxs(block: &[u8; 98], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 0);
    let indices = &block[2..66];
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let word = u32_at(block, 66 + 4 * group);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
        for (l, out) in out.chunks_exact_mut(8).enumerate() {
            let signs = SIGNS[(word >> (7 * l)) as usize & 127];
            let at = 8 * group + 2 * l;
            let (first, second) = out.split_at_mut(4);
            signed(scale, &IQ3_XXS_GRID[usize::from(indices[at])], signs, first);
            signed(scale, &IQ3_XXS_GRID[usize::from(indices[at + 1])], signs >> 4, second);
        }
    }
}

pub(crate) fn s(block: &[u8; 110], out: &mut [f32; SUPER_BLOCK]) {
    let d = f16_at(block, 0);
    let (low, ninth, signs, scales) = (&block[2..66], &block[66..74], &block[74..106], &block[106..]);
    for (quad, out) in out.chunks_exact_mut(4).enumerate() {
        let index = usize::from(low[quad]) | usize::from(ninth[quad / 8] >> (quad % 8) & 1) << 8;
        let code = scales[quad / 16] >> (quad / 8 % 2 * 4) & 15;
        let scale = d * f32::from(1 + 2 * code);
        signed(scale, &IQ3_S_GRID[index], signs[quad / 2] >> (quad % 2 * 4), out);
    }
}
