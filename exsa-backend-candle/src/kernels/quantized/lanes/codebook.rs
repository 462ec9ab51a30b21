//! Kernels of the types whose weights take many instructions to decode: those with a codebook, and TQ1_0.
//!
//! A super-block of the tile is decoded into bytes once, and then multiplied with all rows of the panel. The
//! look-ups are scalar loads and stores, because most instruction sets here have no gather instructions.

use super::super_blocks::{Rows, less};
use super::{Lanes, dots, scaled_dots, unroll};
use crate::kernels::memory::prefetch::prefetch_stream;
use crate::kernels::quantized::activations::PANEL;
use crate::kernels::quantized::args::Args;
use crate::kernels::quantized::layout::*;
use exsa_quant::codebook::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};

/// Added to IQ3_XXS weights, which are -62 to 62 times their scales, so that they are unsigned.
const IQ3_XXS_OFFSET: u8 = 62;

/// The same for IQ3_S.
const IQ3_S_OFFSET: u8 = 15;

/// The same for IQ2 types.
const IQ2_OFFSET: u8 = 43;

/// The same for IQ1 types, whose weights are here eight times those of the grid, plus or minus 1.
const IQ1_OFFSET: u8 = 9;

/// 8 · (grid + 1) of IQ1 types.
static IQ1_BYTES: [[u8; 8]; 2048] = {
    let mut bytes = [[0; 8]; 2048];
    let mut i = 0;
    while i < 2048 * 8 {
        bytes[i / 8][i % 8] = (IQ1_GRID[i / 8][i % 8] + 1) as u8 * 8;
        i += 1;
    }
    bytes
};

/// Whether weights of `kind` are multiplied by [`decode`] and [`products`].
pub(in crate::kernels::quantized) const fn is_decoded(kind: PackedType) -> bool {
    use PackedType::*;
    matches!(kind, Iq3Xxs | Iq3S | Iq2Xxs | Iq2Xs | Iq2S | Iq1S | Iq1M | Tq1_0)
}

/// A decoded super-block of a tile, and the sums of a panel in progress.
#[repr(C, align(64))]
pub(in crate::kernels::quantized) struct Decoded {
    /// `[64][TILE][4]`.
    weights: [u8; 256 * TILE],
    /// Scales of 16 values, `[8][TILE][2]`, or of 32, `[4][TILE][2]`.
    scales: [[u16; TILE]; 8],
    /// Indices of groups of four or eight values.
    indices: [[u16; TILE]; 64],
    sums: [[f32; TILE]; PANEL],
}

impl Decoded {
    /// Zeros.
    pub fn new() -> Self {
        Self {
            weights: [0; 256 * TILE],
            scales: [[0; TILE]; 8],
            indices: [[0; TILE]; 64],
            sums: [[0.0; TILE]; PANEL],
        }
    }

    /// Writes the sums to where `args` want them.
    ///
    /// # Safety
    ///
    /// The contract of [`Args`].
    pub unsafe fn write(&self, args: &Args) {
        for (row, sums) in self.sums.iter().enumerate().take(args.rows) {
            // SAFETY: the columns of this row are in the matrix.
            unsafe {
                let out = args.out.add(row * args.out_stride);
                std::ptr::copy_nonoverlapping(sums.as_ptr(), out, args.columns);
            }
        }
    }
}

/// Decodes super-block `index` of the weights, of `PackedType::ALL[KIND]`.
///
/// # Safety
///
/// The processor has the instructions of `L`, and `args` were made for weights of the type and have that
/// block.
#[inline(always)]
pub(in crate::kernels::quantized) unsafe fn decode<L: Lanes, const KIND: usize>(
    args: &Args,
    index: usize,
    out: &mut Decoded,
) {
    // SAFETY: the fields are in the super-block, by its layout; indices are below the lengths of the tables.
    unsafe {
        let kind = const { PackedType::ALL[KIND] };
        let w = args.weights.add(index * kind.super_block_bytes());
        match kind {
            PackedType::Iq3Xxs => {
                indices::<KIND, 8, 0>(w, out);
                look_up(&IQ3_XXS_GRID, out);
                sign_codes::<L, KIND, false>(w, IQ3_XXS_OFFSET, out);
                scales_of_words::<KIND>(w, out);
            }
            PackedType::Iq3S => {
                indices::<KIND, 8, 1>(w, out);
                look_up(&IQ3_S_GRID, out);
                plain_signs::<L, KIND, false>(w, IQ3_S_OFFSET, out);
                let scales = w.add(const { RunFields::of(PackedType::Iq3S).scales });
                for part in 0..4 {
                    out.scales[part] = scale_pairs(scales.add(part * TILE));
                }
            }
            PackedType::Iq2Xxs => {
                indices::<KIND, 4, 0>(w, out);
                look_up(&IQ2_XXS_GRID, out);
                sign_codes::<L, KIND, true>(w, IQ2_OFFSET, out);
                scales_of_words::<KIND>(w, out);
            }
            PackedType::Iq2Xs => {
                indices::<KIND, 4, 1>(w, out);
                look_up(&IQ2_XS_GRID, out);
                sign_codes::<L, KIND, true>(w, IQ2_OFFSET, out);
                scales_of_words_and_bytes::<KIND>(w, out);
            }
            PackedType::Iq2S => {
                indices::<KIND, 4, 2>(w, out);
                look_up(&IQ2_S_GRID, out);
                plain_signs::<L, KIND, true>(w, IQ2_OFFSET, out);
                scales_of_runs::<KIND>(w, out);
            }
            PackedType::Iq1S => {
                indices_with_nibbles::<KIND>(w, out);
                look_up(&IQ1_BYTES, out);
                directions::<L, KIND>(w, out);
                scales_of_nibbles::<KIND>(w, out);
            }
            PackedType::Iq1M => {
                indices_with_nibbles::<KIND>(w, out);
                look_up(&IQ1_BYTES, out);
                directions::<L, KIND>(w, out);
                scales_of_runs::<KIND>(w, out);
            }
            PackedType::Tq1_0 => digits::<L>(w, out),
            _ => debug_assert!(is_decoded(kind)),
        }
    }
}

/// Multiplies `R` rows from `row` on with the decoded super-block `index` of `PackedType::ALL[KIND]`.
///
/// # Safety
///
/// As of [`decode`], and `row + R` is at most the padded rows.
#[inline(always)]
pub(in crate::kernels::quantized) unsafe fn products<L: Lanes, const KIND: usize, const R: usize>(
    args: &Args,
    row: usize,
    index: usize,
    x: &mut Decoded,
) {
    // SAFETY: passed on.
    unsafe {
        match const { PackedType::ALL[KIND] } {
            PackedType::Iq3Xxs => scaled::<L, KIND, R, 1, 124>(args, row, index, x, IQ3_XXS_OFFSET, 0.25),
            PackedType::Iq3S => scaled::<L, KIND, R, 1, 30>(args, row, index, x, IQ3_S_OFFSET, 1.0),
            PackedType::Iq2Xxs => scaled::<L, KIND, R, 1, 86>(args, row, index, x, IQ2_OFFSET, 0.125),
            PackedType::Iq2Xs | PackedType::Iq2S => {
                scaled::<L, KIND, R, 2, 86>(args, row, index, x, IQ2_OFFSET, 0.125);
            }
            PackedType::Iq1S => scaled::<L, KIND, R, 1, 18>(args, row, index, x, IQ1_OFFSET, 0.125),
            PackedType::Iq1M => scaled::<L, KIND, R, 2, 18>(args, row, index, x, IQ1_OFFSET, 0.125),
            _ => scaled::<L, KIND, R, 0, 2>(args, row, index, x, 1, 1.0),
        }
    }
}

/// The same for bytes up to `MAX`, `offset` too great, with `SCALES` integer scales for each 32 of them, and
/// `d` to be multiplied by `factor`, a power of two.
///
/// # Safety
///
/// As of [`products`].
#[inline(always)]
unsafe fn scaled<L: Lanes, const KIND: usize, const R: usize, const SCALES: usize, const MAX: usize>(
    args: &Args,
    row: usize,
    index: usize,
    x: &mut Decoded,
    offset: u8,
    factor: f32,
) {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let mut rows = Rows::<L, R>::new(args, row);
        rows.skip(index);
        let (weights, scales) = (x.weights.as_ptr(), x.scales.as_ptr().cast::<u8>());
        let mut sums = [L::splat(0); R];
        for part in 0..4 {
            let w = weights.add(part * 16 * 64);
            match SCALES {
                0 => dots::<L, R, 16, MAX>(&mut sums, rows.a, |j| L::bytes(w.add(j * 64))),
                1 => {
                    unroll!(RUN in [0 1] {
                        let scale = L::of_pairs(L::pairs(scales.add(part * 32)), RUN);
                        scaled_dots::<L, R, 8, MAX>(&mut sums, scale, rows.a.add(RUN * 32), |j| {
                            L::bytes(w.add((RUN * 8 + j) * 64))
                        });
                    });
                }
                _ => {
                    unroll!(F in [0 1 2 3] {
                        let scale = L::of_pairs(L::pairs(scales.add((part * 2 + F / 2) * 32)), F % 2);
                        scaled_dots::<L, R, 4, MAX>(&mut sums, scale, rows.a.add(F * 16), |j| {
                            L::bytes(w.add((F * 4 + j) * 64))
                        });
                    });
                }
            }
            rows.next_part();
        }
        let kind = const { PackedType::ALL[KIND] };
        let d = L::halves(args.weights.add(index * kind.super_block_bytes()));
        let d = L::mul(d, L::splat_float(factor));
        for (i, sum) in sums.into_iter().enumerate() {
            let surplus = match SCALES {
                0 => L::splat(rows.sum(i)),
                1 => {
                    let pairs = [
                        L::pairs(scales),
                        L::pairs(scales.add(32)),
                        L::pairs(scales.add(64)),
                        L::pairs(scales.add(96)),
                    ];
                    rows.times_sums32(i, &pairs)
                }
                _ => rows.times_sums16::<false>(i, scales, 64),
            };
            let exact = less::<L>(sum, surplus, i32::from(offset));
            let out = x.sums.as_mut_ptr().add(row + i);
            rows.sums[i] = L::load_floats(out.cast());
            rows.add(i, L::mul(L::floats(exact), d));
            *out = L::array(rows.sums[i]);
        }
    }
}

/// Run `run` of a super-block at `w`.
///
/// # Safety
///
/// The super-block is of `PackedType::ALL[KIND]`, and `run` below 8.
#[inline(always)]
unsafe fn run_at<const KIND: usize>(w: *const u8, run: usize) -> (*const u8, RunFields) {
    let fields = const { RunFields::of(PackedType::ALL[KIND]) };
    // SAFETY: the caller's promise.
    (unsafe { w.add(fields.first + run * fields.bytes) }, fields)
}

/// 16 values at `p`.
///
/// # Safety
///
/// They are there.
#[inline(always)]
unsafe fn sixteen<T: Copy>(p: *const u8) -> [T; TILE] {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<[T; TILE]>().read_unaligned() }
}

/// The indices of a super-block, of which a run has `GROUPS` for each row: 8 bits, and `BITS` upper bits, of
/// all groups in a byte.
///
/// # Safety
///
/// As of [`run_at`].
#[inline(always)]
unsafe fn indices<const KIND: usize, const GROUPS: usize, const BITS: usize>(
    w: *const u8,
    out: &mut Decoded,
) {
    for run in 0..8 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, run);
            prefetch_stream::<4>(p);
            let high: [u8; TILE] = if BITS == 0 { [0; TILE] } else { sixteen(p.add(fields.high)) };
            for group in 0..GROUPS {
                let low: [u8; TILE] = sixteen(p.add(group * TILE));
                let indices = &mut out.indices[run * GROUPS + group];
                for row in 0..TILE {
                    let upper = u16::from(high[row]) >> (group * BITS) & ((1 << BITS) - 1);
                    indices[row] = u16::from(low[row]) | upper << 8;
                }
            }
        }
    }
}

/// The same for IQ1 types: upper bits are in nibbles.
///
/// # Safety
///
/// As of [`run_at`].
#[inline(always)]
unsafe fn indices_with_nibbles<const KIND: usize>(w: *const u8, out: &mut Decoded) {
    for run in 0..8 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, run);
            prefetch_stream::<2>(p);
            for group in 0..4 {
                let low: [u8; TILE] = sixteen(p.add(group * TILE));
                let nibbles: [u8; TILE] = sixteen(p.add(fields.signs + group / 2 * TILE));
                let indices = &mut out.indices[run * 4 + group];
                for row in 0..TILE {
                    let upper = u16::from(nibbles[row]) >> (group % 2 * 4) & 7;
                    indices[row] = u16::from(low[row]) | upper << 8;
                }
            }
        }
    }
}

/// Copies the entries of `table` that the indices name, `[group][TILE][N]`.
///
/// # Safety
///
/// The indices are below `ENTRIES`.
#[inline(always)]
unsafe fn look_up<const N: usize, const ENTRIES: usize>(table: &[[u8; N]; ENTRIES], out: &mut Decoded) {
    let (table, weights) = (table.as_ptr(), out.weights.as_mut_ptr().cast::<[u8; N]>());
    let indices = out.indices.as_ptr().cast::<u16>();
    for first in (0..256 * TILE / N).step_by(TILE) {
        for row in first..first + TILE {
            // SAFETY: the index is in the table, by the caller's promise, and there is room for all entries.
            unsafe { *weights.add(row) = *table.add(usize::from(*indices.add(row))) };
        }
    }
}

/// Gives the entries of octet `octet` their signs, and adds `offset`.
///
/// # Safety
///
/// The processor has the instructions of `L`, and there are fewer than 32 octets before.
#[inline(always)]
unsafe fn sign_octet<L: Lanes, const OCTETS: bool>(
    signs: L::Bytes,
    octet: usize,
    offset: u8,
    out: &mut Decoded,
) {
    // SAFETY: the octet is in the array, by the caller's promise.
    unsafe {
        let p = out.weights.as_mut_ptr().add(octet * 128);
        let [first, second] = entries::<L, OCTETS>(p);
        L::store(p, L::signed::<0>(first, signs, offset));
        L::store(p.add(64), L::signed::<1>(second, signs, offset));
    }
}

/// Two groups of four values at `p`, of which each row has both side by side where `OCTETS`.
///
/// # Safety
///
/// The processor has the instructions of `L`, and 128 bytes are at `p`.
#[inline(always)]
unsafe fn entries<L: Lanes, const OCTETS: bool>(p: *const u8) -> [L::Bytes; 2] {
    // SAFETY: the caller's promise.
    unsafe { if OCTETS { L::unzip(p) } else { [L::bytes(p), L::bytes(p.add(64))] } }
}

/// Signs by codes of 7 bits.
///
/// # Safety
///
/// As of [`run_at`], and the processor has the instructions of `L`.
#[inline(always)]
unsafe fn sign_codes<L: Lanes, const KIND: usize, const OCTETS: bool>(
    w: *const u8,
    offset: u8,
    out: &mut Decoded,
) {
    for run in 0..8 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, run);
            unroll!(OCTET in [0 1 2 3] {
                let signs = L::sign_codes::<{ OCTET as i32 * 7 }>(p.add(fields.signs));
                sign_octet::<L, OCTETS>(signs, run * 4 + OCTET, offset, out);
            });
        }
    }
}

/// Signs by bits.
///
/// # Safety
///
/// As of [`sign_codes`].
#[inline(always)]
unsafe fn plain_signs<L: Lanes, const KIND: usize, const OCTETS: bool>(
    w: *const u8,
    offset: u8,
    out: &mut Decoded,
) {
    for run in 0..8 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, run);
            for octet in 0..4 {
                let signs = L::spread(p.add(fields.signs + octet * TILE));
                sign_octet::<L, OCTETS>(signs, run * 4 + octet, offset, out);
            }
        }
    }
}

/// Adds 2 to the entries of IQ1 types that are shifted upwards: relative to their middle, [`IQ1_OFFSET`],
/// those are then 1 greater and the others 1 less.
///
/// # Safety
///
/// As of [`sign_codes`].
#[inline(always)]
unsafe fn directions<L: Lanes, const KIND: usize>(w: *const u8, out: &mut Decoded) {
    for run in 0..8 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, run);
            let all = matches!(const { PackedType::ALL[KIND] }, PackedType::Iq1S);
            unroll!(OCTET in [0 1 2 3] {
                let place = if all { 0 } else { OCTET };
                let nibbles = L::spread(p.add(fields.signs + place / 2 * TILE));
                let up = if place % 2 == 0 { L::field::<2, 0>(nibbles, 2) } else { L::field::<6, 0>(nibbles, 2) };
                let p = out.weights.as_mut_ptr().add((run * 4 + OCTET) * 128);
                let [first, second] = L::unzip(p);
                L::store(p, L::or(first, up));
                L::store(p.add(64), L::or(second, up));
            });
        }
    }
}

/// Decodes TQ1_0.
///
/// # Safety
///
/// The processor has the instructions of `L`, and `w` is a super-block of TQ1_0.
#[inline(always)]
unsafe fn digits<L: Lanes>(w: *const u8, out: &mut Decoded) {
    let weights = out.weights.as_mut_ptr();
    for line in 0..TQ1_LINES {
        // SAFETY: 12 lines of 5 groups of values and one of 4 are as many as there is room for.
        unsafe {
            let p = w.add(CODEBOOK_HEADER + line * 64);
            prefetch_stream::<1>(p);
            let mut fractions = L::bytes(p);
            let first = weights.add(line * 5 * 64);
            unroll!(DIGIT in [0 1 2 3] {
                L::store(first.add(DIGIT * 64), L::digit(fractions));
                fractions = L::triple(fractions);
            });
            if line < TQ1_LINES - 1 {
                L::store(first.add(4 * 64), L::digit(fractions));
            }
        }
    }
}

/// 2 · s + 1 of the scales in two nibbles of each of 16 bytes, as pairs of bytes.
///
/// # Safety
///
/// 16 bytes are at `p`.
#[inline(always)]
unsafe fn scale_pairs(p: *const u8) -> [u16; TILE] {
    // SAFETY: the caller's promise.
    let bytes: [u8; TILE] = unsafe { sixteen(p) };
    let mut pairs = [0; TILE];
    for row in 0..TILE {
        let byte = u16::from(bytes[row]);
        pairs[row] = 0x0101 | (byte & 15) << 1 | (byte & 0xf0) << 5;
    }
    pairs
}

/// The scales of IQ2_S and IQ1_M, two for each run.
///
/// # Safety
///
/// As of [`run_at`].
#[inline(always)]
unsafe fn scales_of_runs<const KIND: usize>(w: *const u8, out: &mut Decoded) {
    for run in 0..8 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, run);
            out.scales[run] = scale_pairs(p.add(fields.scales));
        }
    }
}

/// The scales beside four sign codes, one for each run.
///
/// # Safety
///
/// As of [`run_at`].
#[inline(always)]
unsafe fn scales_of_words<const KIND: usize>(w: *const u8, out: &mut Decoded) {
    for part in 0..4 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, part * 2);
            let first: [u32; TILE] = sixteen(p.add(fields.signs));
            let second: [u32; TILE] = sixteen(p.add(fields.bytes + fields.signs));
            for row in 0..TILE {
                let pair = 0x0101 | first[row] >> 28 << 1 | second[row] >> 28 << 9;
                out.scales[part][row] = pair as u16;
            }
        }
    }
}

/// The scales of IQ2_XS: the first of a run beside four sign codes, the second in the high nibbles of bytes.
///
/// # Safety
///
/// As of [`run_at`].
#[inline(always)]
unsafe fn scales_of_words_and_bytes<const KIND: usize>(w: *const u8, out: &mut Decoded) {
    for run in 0..8 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, run);
            let first: [u32; TILE] = sixteen(p.add(fields.signs));
            let second: [u8; TILE] = sixteen(p.add(fields.high));
            for row in 0..TILE {
                let pair = 0x0101 | first[row] >> 28 << 1 | (u32::from(second[row]) & 0xf0) << 5;
                out.scales[run][row] = pair as u16;
            }
        }
    }
}

/// The scales of IQ1_S, of three bits on top of the upper bits of indices.
///
/// # Safety
///
/// As of [`run_at`].
#[inline(always)]
unsafe fn scales_of_nibbles<const KIND: usize>(w: *const u8, out: &mut Decoded) {
    for part in 0..4 {
        // SAFETY: the fields are there, by the caller's promise.
        unsafe {
            let (p, fields) = run_at::<KIND>(w, part * 2);
            let mut pairs = [0x0101; TILE];
            for run in 0..2 {
                let p = p.add(run * fields.bytes + fields.signs);
                let (low, high): ([u8; TILE], [u8; TILE]) = (sixteen(p), sixteen(p.add(TILE)));
                for row in 0..TILE {
                    let (low, high) = (u16::from(low[row]), u16::from(high[row]));
                    let scale = low >> 6 & 2 | high >> 1 & 4 | high >> 4 & 8;
                    pairs[row] |= scale << (run * 8);
                }
            }
            out.scales[part] = pairs;
        }
    }
}
