//! Products of packed weights for any instruction set that can do a few things with 16 lanes.
//!
//! The arithmetic is the same on every processor, to the bit: dot products within blocks are exact integers, and the
//! few operations in f32 that follow have one order and fused multiply-adds everywhere.

use super::args::Args;
use super::layout::*;
use crate::kernels::memory::prefetch::prefetch_stream;

/// Operations that a kernel needs of an instruction set: vectors of 16 lanes, one for each row of a tile, in
/// as many registers as it takes.
///
/// # Safety
///
/// All functions need the instructions that the implementation is made of; the pointers hold as many values as said.
pub(super) trait Lanes {
    /// 16 × 4 bytes.
    type Bytes: Copy;
    /// 16 integers of 32 bits.
    type Ints: Copy;
    /// 16 floats of 32 bits.
    type Floats: Copy;
    /// Whether [`dot_full`](Self::dot_full) takes bytes as what they are less 128, so that nothing has to be taken off
    /// its sums.
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
    /// Adds to each lane the dot product of its four bytes, below 64, with the four at `a`.
    ///
    /// # Safety
    ///
    /// The instructions are there, and four bytes at `a`.
    unsafe fn dot(sum: Self::Ints, w: Self::Bytes, a: *const i8) -> Self::Ints;
    /// The same for all bytes.
    ///
    /// # Safety
    ///
    /// The instructions are there, and four bytes at `a`.
    unsafe fn dot_full(sum: Self::Ints, w: Self::Bytes, a: *const i8) -> Self::Ints;
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
    /// 16 integers.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn ints(p: &[i32; TILE]) -> Self::Ints;
    /// Integers as floats, rounded to the nearest.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn floats(ints: Self::Ints) -> Self::Floats;
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

/// Multiplies the panel with the tile.
///
/// # Safety
///
/// The processor has the instructions of `L`, and `args` were made for weights of `kind`.
#[inline(always)]
pub(super) unsafe fn tile<L: Lanes>(kind: PackedType, args: &Args) {
    let mut row = 0;
    while row < args.rows {
        // SAFETY: passed on; the rows are in the panel.
        row += unsafe {
            match args.rows - row {
                1 => rows::<L, 1>(kind, args, row),
                2 | 3 => rows::<L, 2>(kind, args, row),
                _ => rows::<L, 4>(kind, args, row),
            }
        };
    }
}

/// `R` rows from `row` on; returns how many these are.
///
/// # Safety
///
/// As of [`tile`], and `row + R` is at most the padded rows.
#[inline(always)]
unsafe fn rows<L: Lanes, const R: usize>(kind: PackedType, args: &Args, row: usize) -> usize {
    // SAFETY: passed on from the caller.
    let sums = unsafe {
        match kind {
            PackedType::Q8_0 => small::<L, R, 8>(args, row),
            PackedType::Q4_0 => small::<L, R, 4>(args, row),
            PackedType::Q5_0 => small::<L, R, 5>(args, row),
            PackedType::Q4K => q45_k::<L, R, false>(args, row),
            PackedType::Q5K => q45_k::<L, R, true>(args, row),
            PackedType::Q6K => q6_k::<L, R>(args, row),
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
    R
}

/// Adds the dot products of 4 · `N` values from group `from` on, of rows `R`, to `dots`.
macro_rules! dots {
    ($l:ident, $dots:ident, $dot:ident, $w:expr, $a:expr, $group:expr) => {
        let w = $w;
        for (i, dot) in $dots.iter_mut().enumerate() {
            *dot = $l::$dot(*dot, w, $a.add(i * 64 + $group * 4));
        }
    };
}

/// Q8_0, Q4_0 and Q5_0, by their `BITS`.
///
/// # Safety
///
/// As of [`rows`], for a kind with `BITS` bits in blocks of 32.
#[inline(always)]
unsafe fn small<L: Lanes, const R: usize, const BITS: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a) = (args.weights, args.q.add(row * 64));
        let (mut scale, mut zero_point) = (args.scales.add(row), args.zero_points.add(row));
        let mut sums = [L::splat_float(0.0); R];
        for _ in 0..args.super_blocks {
            for second in 0..2 {
                let d = L::halves(w.add(second * 32));
                match BITS {
                    8 => prefetch_stream::<9>(w.add(second * 512)),
                    5 => prefetch_stream::<6>(w.add(second * 320)),
                    _ => prefetch_stream::<5>(w.add(second * 256)),
                }
                let has_zero_point = !(BITS == 8 && L::SIGNED);
                let mut dots = [L::splat(0); R];
                if has_zero_point {
                    for (i, dot) in dots.iter_mut().enumerate() {
                        *dot = L::splat(*zero_point.add(i));
                    }
                }
                let a = a.add(second * 32);
                for j in 0..8 {
                    if BITS == 8 {
                        dots!(L, dots, dot_full, L::bytes(w.add(HEADER + second * QUANTS + j * 64)), a, j);
                    } else {
                        let q = L::nibbles(L::bytes(w.add(HEADER + j * 64)), second);
                        let masks = w.add(Q5_0_FIFTHS + second * 64 + j * 8).cast::<u64>();
                        let q = if BITS == 5 { L::add_fifth(q, masks.read_unaligned()) } else { q };
                        dots!(L, dots, dot, q, a, j);
                    }
                }
                for (i, sum) in sums.iter_mut().enumerate() {
                    let both = L::mul(d, L::splat_float(*scale.add(i)));
                    *sum = L::fma(L::floats(dots[i]), both, *sum);
                }
                zero_point = zero_point.add(args.padded);
                scale = scale.add(args.padded);
            }
            a = a.add(args.padded * 64);
            w = w.add(match BITS {
                8 => Q8_0_BYTES,
                5 => Q5_0_BYTES,
                _ => Q4_0_BYTES,
            });
        }
        sums
    }
}

/// Q4_K, and Q5_K where `FIFTH`.
///
/// # Safety
///
/// As of [`rows`], for Q4_K or Q5_K.
#[inline(always)]
unsafe fn q45_k<L: Lanes, const R: usize, const FIFTH: bool>(args: &Args, row: usize) -> [L::Floats; R] {
    let step = if FIFTH { Q5K_PART } else { Q4K_PART };
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a) = (args.weights, args.q.add(row * 64));
        let (mut scale, mut sum32) = (args.scales.add(row), args.sums32.add(row * 8));
        let mut sums = [L::splat_float(0.0); R];
        for _ in 0..args.super_blocks {
            let (mut scaled, mut mins) = ([L::splat(0); R], [L::splat(0); R]);
            for part in 0..4 {
                let p = w.add(HEADER + part * step);
                for plane in 0..2 {
                    let mut dots = [L::splat(0); R];
                    prefetch_stream::<6>(p.add(plane * 320));
                    for j in 0..8 {
                        let q = L::nibbles(L::bytes(p.add(j * 64)), plane);
                        let q = if FIFTH {
                            let masks = p.add(Q5K_FIFTHS + plane * 64 + j * 8).cast::<u64>();
                            L::add_fifth(q, masks.read_unaligned())
                        } else {
                            q
                        };
                        dots!(L, dots, dot, q, a.add(plane * 32), j);
                    }
                    let (factors, mins_at) = (p.add(K_SCALES + plane * TILE), p.add(K_MINS + plane));
                    let factor = L::ints(&std::array::from_fn(|i| i32::from(*factors.add(i))));
                    let min = L::ints(&std::array::from_fn(|i| i32::from(*mins_at.add(i * 2))));
                    for i in 0..R {
                        scaled[i] = L::mul_add(scaled[i], dots[i], factor);
                        let sum = i32::from(*sum32.add(i * 8 + part * 2 + plane));
                        mins[i] = L::mul_add(mins[i], min, L::splat(sum));
                    }
                }
                a = a.add(args.padded * 64);
            }
            let (d, dmin) = (L::halves(w), L::halves(w.add(32)));
            for i in 0..R {
                let value = L::mul(L::floats(scaled[i]), d);
                let value = L::fnma(L::floats(mins[i]), dmin, value);
                sums[i] = L::fma(value, L::splat_float(*scale.add(i)), sums[i]);
            }
            sum32 = sum32.add(args.padded * 8);
            scale = scale.add(args.padded);
            w = w.add(HEADER + 4 * step);
        }
        sums
    }
}

/// Q6_K.
///
/// # Safety
///
/// As of [`rows`], for Q6_K.
#[inline(always)]
unsafe fn q6_k<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a) = (args.weights, args.q.add(row * 64));
        let (mut scale, mut sum16) = (args.scales.add(row), args.sums16.add(row * 16));
        let mut sums = [L::splat_float(0.0); R];
        for _ in 0..args.super_blocks {
            let mut scaled = [L::splat(0); R];
            for part in 0..4 {
                let p = w.add(HEADER + part * Q6K_PART);
                for plane in 0..2 {
                    prefetch_stream::<7>(p.add(plane * 416));
                    for half in 0..2 {
                        let mut dots = [L::splat(0); R];
                        for (i, dot) in dots.iter_mut().enumerate() {
                            let sum = i32::from(*sum16.add(i * 16 + part * 4 + plane * 2 + half));
                            *dot = L::splat(-32 * sum);
                        }
                        for j in half * 4..half * 4 + 4 {
                            let q = L::nibbles(L::bytes(p.add(j * 64)), plane);
                            let high = L::bytes(p.add(Q6K_HIGH + j % 4 * 64));
                            let q = L::add_pairs(q, high, plane * 4 + half * 2);
                            dots!(L, dots, dot, q, a.add(plane * 32), j);
                        }
                        let factors = p.add(Q6K_SCALES + plane * 32 + half).cast::<i8>();
                        let factor = L::ints(&std::array::from_fn(|i| i32::from(*factors.add(i * 2))));
                        for i in 0..R {
                            scaled[i] = L::mul_add(scaled[i], dots[i], factor);
                        }
                    }
                }
                a = a.add(args.padded * 64);
            }
            let d = L::halves(w);
            for i in 0..R {
                let value = L::mul(L::floats(scaled[i]), d);
                sums[i] = L::fma(value, L::splat_float(*scale.add(i)), sums[i]);
            }
            sum16 = sum16.add(args.padded * 16);
            scale = scale.add(args.padded);
            w = w.add(Q6K_BYTES);
        }
        sums
    }
}
