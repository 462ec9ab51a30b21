//! Lookup tables of the codebook formats. They are part of the formats; the values are those of ggml's
//! `ggml-common.h`.

mod iq1;
mod iq2;
mod iq3;

pub use iq1::IQ1_GRID;
pub use iq2::{IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID};
pub use iq3::{IQ3_S_GRID, IQ3_XXS_GRID};

/// The values of IQ4_NL and IQ4_XS, ascending.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of E2M1, the elements of MXFP4 and NVFP4: bit 3 is the sign.
pub const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The shift of the values of IQ1_S and IQ1_M, up or down.
pub const IQ1_SHIFT: f32 = 0.125;

/// The signs of 8 values by a code of 7 bits (IQ2_XXS, IQ2_XS, IQ3_XXS): bit `i` is set where value `i` is
/// negative. The code holds bits 0 to 6; bit 7 makes the number of negative values even.
pub static SIGNS: [u8; 128] = {
    let mut signs = [0; 128];
    let mut code = 0;
    while code < 128 {
        let bits = code as u8;
        signs[code] = bits | ((bits.count_ones() as u8 & 1) << 7);
        code += 1;
    }
    signs
};

/// Unpacks a grid: entry `i` has `N` codes of `bits` bits each, the first in the lowest, which index
/// `levels`.
const fn unpack<const N: usize, const ROWS: usize>(
    packed: &[u16; ROWS],
    bits: u32,
    levels: &[u8],
) -> [[u8; N]; ROWS] {
    let mut grid = [[0; N]; ROWS];
    let mut row = 0;
    while row < ROWS {
        let mut i = 0;
        while i < N {
            let code = (packed[row] >> (bits * i as u32)) & ((1 << bits) - 1);
            grid[row][i] = levels[code as usize];
            i += 1;
        }
        row += 1;
    }
    grid
}
