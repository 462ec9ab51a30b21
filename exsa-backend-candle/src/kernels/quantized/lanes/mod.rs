//! Products of packed weights for any instruction set that can do a few things with 16 lanes.
//!
//! The arithmetic is the same on every processor, to the bit: dot products within blocks are exact integers,
//! and the few operations in f32 that follow have one order and fused multiply-adds everywhere.

pub(super) mod codebook;
mod small;
mod super_blocks;

use super::args::Args;
use super::layout::{PackedType, TILE};

/// Operations that a kernel needs of an instruction set: vectors of 16 lanes, one for each row of a tile, in
/// as many registers as it takes.
///
/// # Safety
///
/// All functions need the instructions that the implementation is made of; the pointers hold as many values
/// as said.
pub(super) trait Lanes {
    /// 16 × 4 bytes.
    type Bytes: Copy;
    /// 16 integers of 32 bits.
    type Ints: Copy;
    /// 16 floats of 32 bits.
    type Floats: Copy;
    /// Dot products in progress, which may have fewer bits than [`Ints`](Self::Ints).
    type Partial: Copy;
    /// A factor of each lane's sums, of 16 bits or fewer.
    type Scale: Copy;
    /// Sum of the greatest weights whose products a [`Partial`](Self::Partial) holds.
    const PARTIAL_MAX: usize;
    /// Rows of activations that are multiplied at a time: as many as the registers have room for.
    const ROWS: usize;
    /// Whether [`dot_full`](Self::dot_full) takes bytes as what they are less 128, so that nothing has to be
    /// taken off its sums.
    const SIGNED: bool;

    /// 64 bytes at `p`.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 64 bytes at `p`.
    unsafe fn bytes(p: *const u8) -> Self::Bytes;
    /// The low (`plane` 0) or high four bits of each byte.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn nibbles(bytes: Self::Bytes, plane: usize) -> Self::Bytes;
    /// Adds 16 to each byte whose bit in `mask` is set.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn add_fifth(bytes: Self::Bytes, mask: u64) -> Self::Bytes;
    /// Adds two bits of each byte of `high`, from bit `shift` (0, 2, 4 or 6) on, as bits 4 and 5.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn add_pairs(bytes: Self::Bytes, high: Self::Bytes, shift: usize) -> Self::Bytes;
    /// Adds 4-way dot products of all bytes to the lanes.
    ///
    /// # Safety
    ///
    /// The instructions are there, and four bytes at `a`.
    unsafe fn dot_full(sum: Self::Ints, w: Self::Bytes, a: *const i8) -> Self::Ints;
    /// The bits of each byte that `mask` keeps, after a shift to the right and to the left, one of them by 0.
    /// Bits of neighbouring bytes that the shift brings in are for the mask to drop.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn field<const RIGHT: i32, const LEFT: i32>(bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    /// The bits of both.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The entries of `table` that the bytes, below 16, name.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn lookup(table: &[u8; 16], bytes: Self::Bytes) -> Self::Bytes;
    /// Bytes to `p`.
    ///
    /// # Safety
    ///
    /// The instructions are there, and room for 64 bytes at `p`.
    unsafe fn store(p: *mut u8, bytes: Self::Bytes);
    /// Of 16 × 8 bytes at `p`, the first four of each, and the others.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 128 bytes at `p`.
    unsafe fn unzip(p: *const u8) -> [Self::Bytes; 2];
    /// Each of 16 bytes at `p` four times.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 16 bytes at `p`.
    unsafe fn spread(p: *const u8) -> Self::Bytes;
    /// Seven bits of each of 16 words of 32 bits at `p`, from bit `SHIFT` on, and an eighth that makes the
    /// number of set bits even; each four times.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 64 bytes at `p`.
    unsafe fn sign_codes<const SHIFT: i32>(p: *const u8) -> Self::Bytes;
    /// `offset` plus each byte, or minus it where its bit of `signs` is set: bit `i` for the `i`-th byte of a
    /// lane, or bit `4 + i` where `HALF` is 1. All four bytes of a lane of `signs` are the same.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn signed<const HALF: usize>(bytes: Self::Bytes, signs: Self::Bytes, offset: u8) -> Self::Bytes;
    /// The integer part of three times each byte as a fraction of 256.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn digit(fractions: Self::Bytes) -> Self::Bytes;
    /// The fraction that is left then.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn triple(fractions: Self::Bytes) -> Self::Bytes;
    /// Begins dot products that [`close`](Self::close) adds to `sum`.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn open(sum: Self::Ints) -> Self::Partial;
    /// Adds 4-way dot products. The greatest bytes of `w` of all calls between opening and closing add up to
    /// at most [`PARTIAL_MAX`](Self::PARTIAL_MAX), and no byte at `a` is -128.
    ///
    /// # Safety
    ///
    /// The instructions are there, and four bytes at `a`.
    unsafe fn partial(sum: Self::Partial, w: Self::Bytes, a: *const i8) -> Self::Partial;
    /// Has the compiler finish a sum before it loads the operands of later products: left alone it loads
    /// those of many first, and runs out of registers.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    #[inline(always)]
    unsafe fn settle(partial: Self::Partial) -> Self::Partial {
        partial
    }
    /// The same for sums of 32 bits.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    #[inline(always)]
    unsafe fn settle_ints(sum: Self::Ints) -> Self::Ints {
        sum
    }
    /// The same for floats.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    #[inline(always)]
    unsafe fn settle_floats(sum: Self::Floats) -> Self::Floats {
        sum
    }
    /// `sum`, with which it was opened, and the dot products since.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn close(sum: Self::Ints, partial: Self::Partial) -> Self::Ints;
    /// `sum` and `scale` times the dot products since it was opened with zero.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn close_scaled(sum: Self::Ints, partial: Self::Partial, scale: Self::Scale) -> Self::Ints;
    /// 16 unsigned bytes at `p` as factors.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 16 bytes at `p`.
    unsafe fn scales(p: *const u8) -> Self::Scale;
    /// 16 pairs of unsigned bytes at `p`, each as two numbers of 16 bits in a lane.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 32 bytes at `p`.
    unsafe fn pairs(p: *const u8) -> Self::Ints;
    /// The same of signed bytes.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 32 bytes at `p`.
    unsafe fn signed_pairs(p: *const u8) -> Self::Ints;
    /// The low (`plane` 0) or high four bits of [`pairs`](Self::pairs) of bytes.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn pair_nibbles(pairs: Self::Ints, plane: usize) -> Self::Ints;
    /// The first (0) or second numbers of pairs as factors.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn of_pairs(pairs: Self::Ints, which: usize) -> Self::Scale;
    /// The same as integers of 32 bits.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn ints_of_pairs(pairs: Self::Ints, which: usize) -> Self::Ints;
    /// Adds the dot product of each pair with the two numbers at `a`.
    ///
    /// # Safety
    ///
    /// The instructions are there, and two numbers at `a`.
    unsafe fn pair_dot(sum: Self::Ints, pairs: Self::Ints, a: *const i16) -> Self::Ints;
    /// One integer in all lanes.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn splat(value: i32) -> Self::Ints;
    /// `sum + a * b`.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn mul_add(sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Integers as floats, rounded to the nearest.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn floats(ints: Self::Ints) -> Self::Floats;
    /// 2^(e - 128) of 16 exponents at `p`, of which 0 and 1 give subnormal numbers.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 16 bytes at `p`.
    unsafe fn powers(p: *const u8) -> Self::Floats;
    /// 16 numbers of 16 bits at `p` as floats.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 32 bytes at `p`.
    unsafe fn halves(p: *const u8) -> Self::Floats;
    /// One float in all lanes.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn splat_float(value: f32) -> Self::Floats;
    /// 16 floats at `p`.
    ///
    /// # Safety
    ///
    /// The instructions are there, and 16 floats at `p`.
    unsafe fn load_floats(p: *const f32) -> Self::Floats;
    /// `a * b`.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn fnma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The floats.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn array(floats: Self::Floats) -> [f32; TILE];
}

/// Defines `$name`, which multiplies a panel with a tile by the instructions of `$lanes`. Each type and
/// number of rows is a function of its own: in one for all, the compiler would run out of registers.
macro_rules! multiply {
    ($(#[$doc:meta])* $visibility:vis $name:ident, $lanes:ty $(, $features:literal)?) => {
        $(#[$doc])*
        $visibility unsafe fn $name(kind: PackedType, args: &Args) {
            /// # Safety
            ///
            /// As of `rows`, for that type.
            #[inline(never)]
            $(#[target_feature(enable = $features)])?
            unsafe fn kernel<const KIND: usize, const R: usize>(args: &Args, row: usize) -> usize {
                // SAFETY: passed on.
                unsafe { $crate::kernels::quantized::lanes::rows::<$lanes, KIND, R>(args, row) };
                R
            }
            /// # Safety
            ///
            /// As of `codebook::decode`, for that type.
            #[inline(never)]
            $(#[target_feature(enable = $features)])?
            unsafe fn decode<const KIND: usize>(args: &Args, index: usize, out: &mut Decoded) {
                // SAFETY: passed on.
                unsafe { $crate::kernels::quantized::lanes::codebook::decode::<$lanes, KIND>(args, index, out) }
            }
            /// # Safety
            ///
            /// As of `codebook::products`, for that type.
            #[inline(never)]
            $(#[target_feature(enable = $features)])?
            unsafe fn products<const KIND: usize, const R: usize>(
                args: &Args,
                row: usize,
                index: usize,
                decoded: &mut Decoded,
            ) -> usize {
                // SAFETY: passed on.
                unsafe {
                    $crate::kernels::quantized::lanes::codebook::products::<$lanes, KIND, R>(args, row, index, decoded)
                };
                R
            }
            use $crate::kernels::quantized::lanes::codebook::Decoded;
            macro_rules! decoded {
                ($kind:literal) => {{
                    let mut decoded = Decoded::new();
                    for index in 0..args.super_blocks {
                        // SAFETY: passed on; the rows are in the panel, which has padding to 8, 12 or 16
                        // rows.
                        unsafe {
                            decode::<$kind>(args, index, &mut decoded);
                            let mut row = 0;
                            while row < args.rows {
                                row += match args.rows - row {
                                    1 => products::<$kind, 1>(args, row, index, &mut decoded),
                                    2 | 3 => products::<$kind, 2>(args, row, index, &mut decoded),
                                    8.. if <$lanes>::ROWS == 8 => products::<$kind, 8>(args, row, index, &mut decoded),
                                    _ => products::<$kind, 4>(args, row, index, &mut decoded),
                                };
                            }
                        }
                    }
                    // SAFETY: passed on.
                    unsafe { decoded.write(args) };
                }};
            }
            macro_rules! by_rows {
                ($kind:literal) => {{
                    let mut row = 0;
                    while row < args.rows {
                        // SAFETY: passed on; the rows are in the panel, which has padding to 8, 12 or 16
                        // rows.
                        row += unsafe {
                            match args.rows - row {
                                1 => kernel::<$kind, 1>(args, row),
                                2 | 3 => kernel::<$kind, 2>(args, row),
                                8.. if <$lanes>::ROWS == 8 => kernel::<$kind, 8>(args, row),
                                _ => kernel::<$kind, 4>(args, row),
                            }
                        };
                    }
                }};
            }
            match kind as usize {
                0 => by_rows!(0),
                1 => by_rows!(1),
                2 => by_rows!(2),
                3 => by_rows!(3),
                4 => by_rows!(4),
                5 => by_rows!(5),
                6 => by_rows!(6),
                7 => by_rows!(7),
                8 => by_rows!(8),
                9 => by_rows!(9),
                10 => by_rows!(10),
                11 => by_rows!(11),
                12 => by_rows!(12),
                13 => by_rows!(13),
                14 => decoded!(14),
                15 => decoded!(15),
                16 => decoded!(16),
                17 => decoded!(17),
                18 => decoded!(18),
                19 => decoded!(19),
                20 => decoded!(20),
                _ => decoded!(21),
            }
        }
    };
}

pub(super) use multiply;

// The types that the macro above counts.
const _: () = {
    assert!(PackedType::ALL.len() == 22);
    let mut i = 0;
    while i < 22 {
        assert!(PackedType::ALL[i] as usize == i);
        assert!(codebook::is_decoded(PackedType::ALL[i]) == (i >= 14));
        i += 1;
    }
};

/// `R` rows from `row` on, for weights of `PackedType::ALL[KIND]`.
///
/// # Safety
///
/// The processor has the instructions of `L`, `args` were made for weights of the type, and `row + R` is at
/// most the padded rows.
#[inline(always)]
pub(super) unsafe fn rows<L: Lanes, const KIND: usize, const R: usize>(args: &Args, row: usize) {
    // SAFETY: passed on from the caller.
    let sums = unsafe {
        match const { PackedType::ALL[KIND] } {
            PackedType::Q8_0 => small::q8_0::<L, R>(args, row),
            PackedType::Q4_0 => small::nibbles::<L, R, false, false>(args, row),
            PackedType::Q5_0 => small::nibbles::<L, R, true, false>(args, row),
            PackedType::Q4_1 => small::nibbles::<L, R, false, true>(args, row),
            PackedType::Q5_1 => small::nibbles::<L, R, true, true>(args, row),
            PackedType::Iq4Nl => small::iq4_nl::<L, R>(args, row),
            PackedType::Mxfp4 => small::mxfp4::<L, R>(args, row),
            PackedType::Q2K => super_blocks::q2_k::<L, R>(args, row),
            PackedType::Q3K => super_blocks::q3_k::<L, R>(args, row),
            PackedType::Q4K => super_blocks::q45_k::<L, R, false>(args, row),
            PackedType::Q5K => super_blocks::q45_k::<L, R, true>(args, row),
            PackedType::Q6K => super_blocks::q6_k::<L, R>(args, row),
            PackedType::Iq4Xs => super_blocks::iq4_xs::<L, R>(args, row),
            PackedType::Tq2_0 => super_blocks::tq2_0::<L, R>(args, row),
            kind => return debug_assert!(!codebook::is_decoded(kind)),
        }
    };
    for (i, sums) in sums.into_iter().enumerate() {
        // SAFETY: the columns of these rows are in the matrix.
        unsafe {
            let sums = L::array(sums);
            let out = args.out.add((row + i) * args.out_stride);
            std::ptr::copy_nonoverlapping(sums.as_ptr(), out, args.columns);
        }
    }
}

/// Repeats a block for each constant `F`, unrolled.
macro_rules! unroll {
    ($f:ident in [$($n:literal)*] $body:block) => { $({ const $f: usize = $n; $body })* };
}

use unroll;

/// Groups of weights up to `max` whose products a partial sum holds: a divisor of `groups`.
const fn chain<L: Lanes>(max: usize, groups: usize) -> usize {
    let mut chain = groups;
    while chain > 1 && (chain * max > L::PARTIAL_MAX || !groups.is_multiple_of(chain)) {
        chain -= 1;
    }
    chain
}

/// Adds to the sums of `R` rows of activations the dot products of `N` groups of four values, `weights(j)`
/// with those at `a + 4 · j`; no weight is greater than `MAX`.
///
/// # Safety
///
/// The processor has the instructions of `L`, and the activations are there, `R` rows 64 bytes apart.
#[inline(always)]
unsafe fn dots<L: Lanes, const R: usize, const N: usize, const MAX: usize>(
    sums: &mut [L::Ints; R],
    a: *const i8,
    weights: impl Fn(usize) -> L::Bytes,
) {
    let chain = const { chain::<L>(MAX, N) };
    for first in (0..N).step_by(chain) {
        // SAFETY: the activations are there, by the caller's promise; `chain` keeps within the bounds of
        // sums.
        unsafe {
            let mut partials = [L::open(sums[0]); R];
            for (partial, sum) in partials.iter_mut().zip(&*sums) {
                *partial = L::open(*sum);
            }
            for j in first..first + chain {
                let w = weights(j);
                for (i, partial) in partials.iter_mut().enumerate() {
                    *partial = L::settle(L::partial(*partial, w, a.add(i * 64 + j * 4)));
                }
            }
            for (sum, partial) in sums.iter_mut().zip(partials) {
                *sum = L::settle_ints(L::close(*sum, partial));
            }
        }
    }
}

/// The same, with the dot products times `scale`.
///
/// # Safety
///
/// As of [`dots`].
#[inline(always)]
unsafe fn scaled_dots<L: Lanes, const R: usize, const N: usize, const MAX: usize>(
    sums: &mut [L::Ints; R],
    scale: L::Scale,
    a: *const i8,
    weights: impl Fn(usize) -> L::Bytes,
) {
    let chain = const { chain::<L>(MAX, N) };
    for first in (0..N).step_by(chain) {
        // SAFETY: as of `dots`.
        unsafe {
            let mut partials = [L::open(L::splat(0)); R];
            for j in first..first + chain {
                let w = weights(j);
                for (i, partial) in partials.iter_mut().enumerate() {
                    *partial = L::settle(L::partial(*partial, w, a.add(i * 64 + j * 4)));
                }
            }
            for (sum, partial) in sums.iter_mut().zip(partials) {
                *sum = L::settle_ints(L::close_scaled(*sum, partial, scale));
            }
        }
    }
}

/// The same with weights of 8 bits; where [`Lanes::SIGNED`], less 128.
///
/// # Safety
///
/// As of [`dots`].
#[inline(always)]
unsafe fn full_dots<L: Lanes, const R: usize, const N: usize>(
    sums: &mut [L::Ints; R],
    a: *const i8,
    weights: impl Fn(usize) -> L::Bytes,
) {
    for j in 0..N {
        let w = weights(j);
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: as of `dots`.
            *sum = unsafe { L::settle_ints(L::dot_full(*sum, w, a.add(i * 64 + j * 4))) };
        }
    }
}
