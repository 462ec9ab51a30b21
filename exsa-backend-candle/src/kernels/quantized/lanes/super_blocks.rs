//! Kernels of the types with blocks of 256 values, which have integer scales, and often mins, within.

use super::{Lanes, dots, full_dots, scaled_dots, unroll};
use crate::kernels::memory::prefetch::prefetch_stream;
use crate::kernels::quantized::args::Args;
use crate::kernels::quantized::layout::*;

/// Places in the activations of a panel, and sums in progress, of `R` rows.
pub(super) struct Rows<L: Lanes, const R: usize> {
    pub a: *const i8,
    scale: *const f32,
    sums32: *const i16,
    sums16: *const i16,
    /// Rows of the panel with padding.
    padded: usize,
    pub sums: [L::Floats; R],
}

impl<L: Lanes, const R: usize> Rows<L, R> {
    /// From `row` on.
    ///
    /// # Safety
    ///
    /// The processor has the instructions of `L`, and `args` hold `R` rows from `row` on.
    #[inline(always)]
    pub unsafe fn new(args: &Args, row: usize) -> Self {
        // SAFETY: the rows are in the panel, by the caller's promise.
        unsafe {
            Self {
                a: args.q.add(row * 64),
                scale: args.scales.add(row),
                sums32: args.sums32.add(row * 8),
                sums16: args.sums16.add(row * 16),
                padded: args.padded,
                sums: [L::splat_float(0.0); R],
            }
        }
    }

    /// To the next 64 values.
    ///
    /// # Safety
    ///
    /// There are such values, or the end of the panel.
    #[inline(always)]
    pub unsafe fn next_part(&mut self) {
        // SAFETY: the caller's promise.
        self.a = unsafe { self.a.add(self.padded * 64) };
    }

    /// The sums of eight times 32 activations of row `i` times four pairs of numbers of each lane.
    ///
    /// # Safety
    ///
    /// A block of the panel is left.
    #[inline(always)]
    pub unsafe fn times_sums32(&self, i: usize, pairs: &[L::Ints; 4]) -> L::Ints {
        // SAFETY: the sums are there, by the caller's promise.
        unsafe {
            let mut sum = L::splat(0);
            for (j, pair) in pairs.iter().enumerate() {
                sum = L::pair_dot(sum, *pair, self.sums32.add(i * 8 + j * 2));
            }
            sum
        }
    }

    /// The sums of sixteen times 16 activations of row `i` times eight pairs of bytes of each lane, of which
    /// a part of the super-block, `step` bytes, has two: signed bytes, or high nibbles where `NIBBLES`.
    ///
    /// # Safety
    ///
    /// A block of the panel is left, and the pairs are there.
    #[inline(always)]
    pub unsafe fn times_sums16<const NIBBLES: bool>(
        &self,
        i: usize,
        bytes: *const u8,
        step: usize,
    ) -> L::Ints {
        // SAFETY: sums and pairs are there, by the caller's promise.
        unsafe {
            let mut sum = L::splat(0);
            for j in 0..8 {
                let at = bytes.add(j / 2 * step + j % 2 * 32);
                let pairs = if NIBBLES { L::pair_nibbles(L::pairs(at), 1) } else { L::signed_pairs(at) };
                sum = L::pair_dot(sum, pairs, self.sums16.add(i * 16 + j * 2));
            }
            sum
        }
    }

    /// Adds the value of row `i` times the scale of its activations.
    ///
    /// # Safety
    ///
    /// A block of the panel is left.
    #[inline(always)]
    pub unsafe fn add(&mut self, i: usize, value: L::Floats) {
        // SAFETY: the scale is there, by the caller's promise.
        unsafe {
            let sum = L::fma(value, L::splat_float(*self.scale.add(i)), self.sums[i]);
            self.sums[i] = L::settle_floats(sum);
        }
    }

    /// The sum of the 256 activations of row `i`.
    ///
    /// # Safety
    ///
    /// A block of the panel is left.
    #[inline(always)]
    pub unsafe fn sum(&self, i: usize) -> i32 {
        // SAFETY: the sums are there, by the caller's promise.
        let sums = unsafe { self.sums32.add(i * 8).cast::<[i16; 8]>().read_unaligned() };
        sums.into_iter().map(i32::from).sum()
    }

    /// Over `super_blocks` super-blocks.
    ///
    /// # Safety
    ///
    /// There are as many.
    #[inline(always)]
    pub unsafe fn skip(&mut self, super_blocks: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            self.a = self.a.add(self.padded * 256 * super_blocks);
            self.scale = self.scale.add(self.padded * super_blocks);
            self.sums32 = self.sums32.add(self.padded * 8 * super_blocks);
            self.sums16 = self.sums16.add(self.padded * 16 * super_blocks);
        }
    }

    /// To the next super-block.
    ///
    /// # Safety
    ///
    /// There is one, or the end of the panel.
    #[inline(always)]
    unsafe fn next(&mut self) {
        // SAFETY: the caller's promise.
        unsafe {
            self.scale = self.scale.add(self.padded);
            self.sums32 = self.sums32.add(self.padded * 8);
            self.sums16 = self.sums16.add(self.padded * 16);
        }
    }
}

/// `a - b * factor`.
///
/// # Safety
///
/// The processor has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn less<L: Lanes>(a: L::Ints, b: L::Ints, factor: i32) -> L::Ints {
    // SAFETY: the caller's promise.
    unsafe { L::mul_add(a, b, L::splat(-factor)) }
}

/// Q4_K, and Q5_K where `FIFTH`.
///
/// # Safety
///
/// As of [`rows`](super::rows), for Q4_K or Q5_K.
#[inline(always)]
pub(super) unsafe fn q45_k<L: Lanes, const R: usize, const FIFTH: bool>(
    args: &Args,
    row: usize,
) -> [L::Floats; R] {
    let step = if FIFTH { Q5K_PART } else { Q4K_PART };
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            let mut sums = [L::splat(0); R];
            for part in 0..4 {
                let p = w.add(HEADER + part * step);
                unroll!(PLANE in [0 1] {
                    prefetch_stream::<6>(p.add(PLANE * 320));
                    let scale = L::scales(p.add(K_SCALES + PLANE * TILE));
                    let nibbles = |j: usize| L::nibbles(L::bytes(p.add(j * 64)), PLANE);
                    let a = rows.a.add(PLANE * 32);
                    if FIFTH {
                        let masks = p.add(Q5K_FIFTHS + PLANE * 64);
                        scaled_dots::<L, R, 8, 31>(&mut sums, scale, a, |j| {
                            L::add_fifth(nibbles(j), masks.add(j * 8).cast::<u64>().read_unaligned())
                        });
                    } else {
                        scaled_dots::<L, R, 8, 15>(&mut sums, scale, a, nibbles);
                    }
                });
                rows.next_part();
            }
            let (d, dmin) = (L::halves(w), L::halves(w.add(32)));
            let mins = w.add(HEADER + K_MINS);
            let mins = [
                L::pairs(mins),
                L::pairs(mins.add(step)),
                L::pairs(mins.add(2 * step)),
                L::pairs(mins.add(3 * step)),
            ];
            for (i, sum) in sums.into_iter().enumerate() {
                let value = L::mul(L::floats(sum), d);
                rows.add(i, L::fnma(L::floats(rows.times_sums32(i, &mins)), dmin, value));
            }
            rows.next();
            w = w.add(HEADER + 4 * step);
        }
        rows.sums
    }
}

/// Q6_K.
///
/// # Safety
///
/// As of [`rows`](super::rows), for Q6_K.
#[inline(always)]
pub(super) unsafe fn q6_k<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            let mut sums = [L::splat(0); R];
            for part in 0..4 {
                let p = w.add(HEADER + part * Q6K_PART);
                unroll!(PLANE in [0 1] {
                    prefetch_stream::<7>(p.add(PLANE * 416));
                    let pairs = L::signed_pairs(p.add(Q6K_SCALES + PLANE * 32));
                    unroll!(HALF in [0 1] {
                        let a = rows.a.add(PLANE * 32 + HALF * 16);
                        scaled_dots::<L, R, 4, 63>(&mut sums, L::of_pairs(pairs, HALF), a, |j| {
                            let q = L::nibbles(L::bytes(p.add((HALF * 4 + j) * 64)), PLANE);
                            L::add_pairs(q, L::bytes(p.add(Q6K_HIGH + j * 64)), PLANE * 4 + HALF * 2)
                        });
                    });
                });
                rows.next_part();
            }
            let d = L::halves(w);
            let scales = w.add(HEADER + Q6K_SCALES);
            for (i, sum) in sums.into_iter().enumerate() {
                // Quants are 32 too great.
                let of_scales = rows.times_sums16::<false>(i, scales, Q6K_PART);
                rows.add(i, L::mul(L::floats(less::<L>(sum, of_scales, 32)), d));
            }
            rows.next();
            w = w.add(Q6K_BYTES);
        }
        rows.sums
    }
}

/// Q2_K.
///
/// # Safety
///
/// As of [`rows`](super::rows), for Q2_K.
#[inline(always)]
pub(super) unsafe fn q2_k<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            let mut sums = [L::splat(0); R];
            for part in 0..4 {
                let p = w.add(HEADER + part * Q2K_PART);
                prefetch_stream::<6>(p);
                unroll!(F in [0 1 2 3] {
                    let scales = L::pair_nibbles(L::pairs(p.add(Q2K_SCALES + F / 2 * 32)), 0);
                    let a = rows.a.add(F * 16);
                    scaled_dots::<L, R, 4, 3>(&mut sums, L::of_pairs(scales, F % 2), a, |j| {
                        L::field::<{ F as i32 * 2 }, 0>(L::bytes(p.add(j * 64)), 3)
                    });
                });
                rows.next_part();
            }
            let (d, dmin) = (L::halves(w), L::halves(w.add(32)));
            let mins = w.add(HEADER + Q2K_SCALES);
            for (i, sum) in sums.into_iter().enumerate() {
                let of_mins = rows.times_sums16::<true>(i, mins, Q2K_PART);
                rows.add(i, L::fnma(L::floats(of_mins), dmin, L::mul(L::floats(sum), d)));
            }
            rows.next();
            w = w.add(Q2K_BYTES);
        }
        rows.sums
    }
}

/// Q3_K.
///
/// # Safety
///
/// As of [`rows`](super::rows), for Q3_K.
#[inline(always)]
pub(super) unsafe fn q3_k<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            let mut sums = [L::splat(0); R];
            for part in 0..4 {
                let p = w.add(Q3K_HEADER + part * Q3K_PART);
                prefetch_stream::<8>(p);
                unroll!(F in [0 1 2 3] {
                    let scales = L::signed_pairs(p.add(Q3K_SCALES + F / 2 * 32));
                    let a = rows.a.add(F * 16);
                    // Third bits of the four groups: of lines 0 and 1, then again one bit further.
                    let third = |j: usize| {
                        const BIT: i32 = F as i32 * 2;
                        let line = L::bytes(p.add(Q3K_HIGH + j % 2 * 64));
                        if j < 2 {
                            L::field::<{ right(BIT) }, { left(BIT) }>(line, 4)
                        } else {
                            L::field::<{ right(BIT + 1) }, { left(BIT + 1) }>(line, 4)
                        }
                    };
                    scaled_dots::<L, R, 4, 7>(&mut sums, L::of_pairs(scales, F % 2), a, |j| {
                        L::or(L::field::<{ F as i32 * 2 }, 0>(L::bytes(p.add(j * 64)), 3), third(j))
                    });
                });
                rows.next_part();
            }
            let d = L::halves(w);
            let scales = w.add(Q3K_HEADER + Q3K_SCALES);
            for (i, sum) in sums.into_iter().enumerate() {
                // Quants are 4 too great.
                let of_scales = rows.times_sums16::<false>(i, scales, Q3K_PART);
                rows.add(i, L::mul(L::floats(less::<L>(sum, of_scales, 4)), d));
            }
            rows.next();
            w = w.add(Q3K_BYTES);
        }
        rows.sums
    }
}

/// Shift that brings bit `bit` of a byte to bit 2, to the right.
const fn right(bit: i32) -> i32 {
    if bit > 2 { bit - 2 } else { 0 }
}

/// The same to the left.
const fn left(bit: i32) -> i32 {
    if bit < 2 { 2 - bit } else { 0 }
}

/// IQ4_XS.
///
/// # Safety
///
/// As of [`rows`](super::rows), for IQ4_XS.
#[inline(always)]
pub(super) unsafe fn iq4_xs<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            let mut sums = [L::splat(0); R];
            for part in 0..4 {
                let p = w.add(HEADER + part * IQ4XS_PART);
                let scales = L::signed_pairs(p.add(IQ4XS_SCALES));
                unroll!(PLANE in [0 1] {
                    prefetch_stream::<5>(p.add(PLANE * 272));
                    let mut dots = [L::splat(0); R];
                    full_dots::<L, R, 8>(&mut dots, rows.a.add(PLANE * 32), |j| {
                        L::lookup(&IQ4_LEVELS, L::nibbles(L::bytes(p.add(j * 64)), PLANE))
                    });
                    let scale = L::ints_of_pairs(scales, PLANE);
                    for (sum, dots) in sums.iter_mut().zip(dots) {
                        *sum = L::mul_add(*sum, dots, scale);
                    }
                });
                rows.next_part();
            }
            let d = L::halves(w);
            let scales = w.add(HEADER + IQ4XS_SCALES);
            let scales = [
                L::signed_pairs(scales),
                L::signed_pairs(scales.add(IQ4XS_PART)),
                L::signed_pairs(scales.add(2 * IQ4XS_PART)),
                L::signed_pairs(scales.add(3 * IQ4XS_PART)),
            ];
            for (i, sum) in sums.into_iter().enumerate() {
                // Levels are 128 too great.
                let exact = if L::SIGNED { sum } else { less::<L>(sum, rows.times_sums32(i, &scales), 128) };
                rows.add(i, L::mul(L::floats(exact), d));
            }
            rows.next();
            w = w.add(IQ4XS_BYTES);
        }
        rows.sums
    }
}

/// TQ2_0.
///
/// # Safety
///
/// As of [`rows`](super::rows), for TQ2_0.
#[inline(always)]
pub(super) unsafe fn tq2_0<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            let mut sums = [L::splat(0); R];
            for part in 0..4 {
                let p = w.add(CODEBOOK_HEADER + part * TQ2_PART);
                prefetch_stream::<4>(p);
                dots::<L, R, 16, 3>(&mut sums, rows.a, |j| {
                    let line = L::bytes(p.add(j % 4 * 64));
                    match j / 4 {
                        0 => L::field::<0, 0>(line, 3),
                        1 => L::field::<2, 0>(line, 3),
                        2 => L::field::<4, 0>(line, 3),
                        _ => L::field::<6, 0>(line, 3),
                    }
                });
                rows.next_part();
            }
            let d = L::halves(w);
            for (i, sum) in sums.into_iter().enumerate() {
                // Quants are 1 too great.
                let exact = less::<L>(sum, L::splat(rows.sum(i)), 1);
                rows.add(i, L::mul(L::floats(exact), d));
            }
            rows.next();
            w = w.add(TQ2_BYTES);
        }
        rows.sums
    }
}
