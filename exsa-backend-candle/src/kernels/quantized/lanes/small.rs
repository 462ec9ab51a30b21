//! Kernels of the types with blocks of 32 values, each with scales of its own, of which two make a
//! super-block.

use super::{Lanes, dots, full_dots, unroll};
use crate::kernels::memory::prefetch::prefetch_stream;
use crate::kernels::quantized::args::Args;
use crate::kernels::quantized::layout::*;

/// Places in the activations of a panel, and sums in progress, of `R` rows.
struct Rows<L: Lanes, const R: usize> {
    a: *const i8,
    scale: *const f32,
    zero_point: *const i32,
    /// Rows of the panel with padding.
    padded: usize,
    sums: [L::Floats; R],
}

impl<L: Lanes, const R: usize> Rows<L, R> {
    /// From `row` on.
    ///
    /// # Safety
    ///
    /// The processor has the instructions of `L`, and `args` hold `R` rows from `row` on.
    #[inline(always)]
    unsafe fn new(args: &Args, row: usize) -> Self {
        // SAFETY: the rows are in the panel, by the caller's promise.
        unsafe {
            Self {
                a: args.q.add(row * 64),
                scale: args.scales.add(row),
                zero_point: args.zero_points.add(row),
                padded: args.padded,
                sums: [L::splat_float(0.0); R],
            }
        }
    }

    /// The zero-point terms, to begin sums with; zeros where `signed`.
    ///
    /// # Safety
    ///
    /// A block of the panel is left.
    #[inline(always)]
    unsafe fn zero_points(&self, signed: bool) -> [L::Ints; R] {
        // SAFETY: the terms are there, by the caller's promise.
        unsafe {
            let mut terms = [L::splat(0); R];
            for (i, term) in terms.iter_mut().enumerate() {
                if !signed {
                    *term = L::splat(*self.zero_point.add(i));
                }
            }
            terms
        }
    }

    /// Ends block `second` of a super-block: adds its dot products times the scales.
    ///
    /// # Safety
    ///
    /// A block of the panel is left.
    #[inline(always)]
    unsafe fn add(&mut self, dots: [L::Ints; R], d: L::Floats, second: usize) {
        // SAFETY: the scales are there, by the caller's promise, and so is what is one block further, or its
        // end.
        unsafe {
            for (i, sum) in self.sums.iter_mut().enumerate() {
                let both = L::mul(d, L::splat_float(*self.scale.add(i)));
                *sum = L::settle_floats(L::fma(L::floats(dots[i]), both, *sum));
            }
            self.scale = self.scale.add(self.padded);
            self.zero_point = self.zero_point.add(self.padded);
            if second == 1 {
                self.a = self.a.add(self.padded * 64);
            }
        }
    }

    /// Adds the min of a block times the sum of its activations; before [`add`](Self::add).
    ///
    /// # Safety
    ///
    /// A block of the panel is left, and the weights have mins: the zero-point terms are sums.
    #[inline(always)]
    unsafe fn add_min(&mut self, m: L::Floats) {
        // SAFETY: scales and sums are there, by the caller's promise.
        unsafe {
            for (i, sum) in self.sums.iter_mut().enumerate() {
                let activations = *self.scale.add(i) * *self.zero_point.add(i) as f32;
                *sum = L::fma(m, L::splat_float(activations), *sum);
            }
        }
    }
}

/// Q8_0.
///
/// # Safety
///
/// As of [`rows`](super::rows), for Q8_0.
#[inline(always)]
pub(super) unsafe fn q8_0<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            unroll!(SECOND in [0 1] {
                prefetch_stream::<9>(w.add(SECOND * 512));
                let mut dots = rows.zero_points(L::SIGNED);
                let q = w.add(HEADER + SECOND * QUANTS);
                full_dots::<L, R, 8>(&mut dots, rows.a.add(SECOND * 32), |j| L::bytes(q.add(j * 64)));
                rows.add(dots, L::halves(w.add(SECOND * 32)), SECOND);
            });
            w = w.add(Q8_0_BYTES);
        }
        rows.sums
    }
}

/// Q4_0, and Q5_0 where `FIFTH`; Q4_1 and Q5_1 where `MIN`.
///
/// # Safety
///
/// As of [`rows`](super::rows), for these types.
#[inline(always)]
pub(super) unsafe fn nibbles<L: Lanes, const R: usize, const FIFTH: bool, const MIN: bool>(
    args: &Args,
    row: usize,
) -> [L::Floats; R] {
    let mins = if FIFTH { Q5_0_BYTES } else { Q4_0_BYTES };
    let super_block = if MIN { mins + HEADER } else { mins };
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            unroll!(SECOND in [0 1] {
                prefetch_stream::<6>(w.add(SECOND * super_block / 2));
                let mut sums = rows.zero_points(MIN);
                let nibbles = |j: usize| L::nibbles(L::bytes(w.add(HEADER + j * 64)), SECOND);
                let a = rows.a.add(SECOND * 32);
                if FIFTH {
                    let masks = w.add(Q5_0_FIFTHS + SECOND * 64);
                    dots::<L, R, 8, 31>(&mut sums, a, |j| {
                        L::add_fifth(nibbles(j), masks.add(j * 8).cast::<u64>().read_unaligned())
                    });
                } else {
                    dots::<L, R, 8, 15>(&mut sums, a, nibbles);
                }
                if MIN {
                    rows.add_min(L::halves(w.add(mins + SECOND * 32)));
                }
                rows.add(sums, L::halves(w.add(SECOND * 32)), SECOND);
            });
            w = w.add(super_block);
        }
        rows.sums
    }
}

/// IQ4_NL.
///
/// # Safety
///
/// As of [`rows`](super::rows), for IQ4_NL.
#[inline(always)]
pub(super) unsafe fn iq4_nl<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            unroll!(SECOND in [0 1] {
                prefetch_stream::<5>(w.add(SECOND * Q4_0_BYTES / 2));
                let mut sums = rows.zero_points(L::SIGNED);
                full_dots::<L, R, 8>(&mut sums, rows.a.add(SECOND * 32), |j| {
                    L::lookup(&IQ4_LEVELS, L::nibbles(L::bytes(w.add(HEADER + j * 64)), SECOND))
                });
                rows.add(sums, L::halves(w.add(SECOND * 32)), SECOND);
            });
            w = w.add(Q4_0_BYTES);
        }
        rows.sums
    }
}

/// MXFP4.
///
/// # Safety
///
/// As of [`rows`](super::rows), for MXFP4.
#[inline(always)]
pub(super) unsafe fn mxfp4<L: Lanes, const R: usize>(args: &Args, row: usize) -> [L::Floats; R] {
    // SAFETY: lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut rows) = (args.weights, Rows::<L, R>::new(args, row));
        for _ in 0..args.super_blocks {
            unroll!(SECOND in [0 1] {
                prefetch_stream::<5>(w.add(SECOND * MXFP4_BYTES / 2));
                let mut sums = rows.zero_points(false);
                dots::<L, R, 8, 24>(&mut sums, rows.a.add(SECOND * 32), |j| {
                    L::lookup(&MXFP4_LEVELS, L::nibbles(L::bytes(w.add(j * 64)), SECOND))
                });
                rows.add(sums, L::powers(w.add(QUANTS + SECOND * TILE)), SECOND);
            });
            w = w.add(MXFP4_BYTES);
        }
        rows.sums
    }
}
