//! Kernels of the types with blocks of 256 values, which have integer scales, and often mins, within.

use super::{Lanes, full_dots, scaled_dots};
use crate::kernels::memory::prefetch::prefetch_stream;
use crate::kernels::quantized::args::Args;
use crate::kernels::quantized::layout::*;

/// Repeats a block for each constant `F`, unrolled.
macro_rules! unroll {
    ($f:ident in [$($n:literal)*] $body:block) => { $({ const $f: usize = $n; $body })* };
}

/// Places in the activations of a panel, and sums in progress, of `R` rows.
struct Rows<L: Lanes, const R: usize> {
    a: *const i8,
    scale: *const f32,
    sums32: *const i16,
    sums16: *const i16,
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
    unsafe fn next_part(&mut self) {
        // SAFETY: the caller's promise.
        self.a = unsafe { self.a.add(self.padded * 64) };
    }

    /// The sums of eight times 32 activations of row `i` times the pairs at `step` bytes from each other: four of them.
    ///
    /// # Safety
    ///
    /// A block of the panel is left, and the pairs are there.
    #[inline(always)]
    unsafe fn times_sums32(&self, i: usize, pairs: &[L::Ints; 4]) -> L::Ints {
        // SAFETY: the sums are there, by the caller's promise.
        unsafe {
            let mut sum = L::splat(0);
            for (j, pair) in pairs.iter().enumerate() {
                sum = L::pair_dot(sum, *pair, self.sums32.add(i * 8 + j * 2));
            }
            sum
        }
    }

    /// The sums of sixteen times 16 activations of row `i` times the pairs that `pairs` gives, eight of them.
    ///
    /// # Safety
    ///
    /// A block of the panel is left.
    #[inline(always)]
    unsafe fn times_sums16(&self, i: usize, pairs: impl Fn(usize) -> L::Ints) -> L::Ints {
        // SAFETY: the sums are there, by the caller's promise.
        unsafe {
            let mut sum = L::splat(0);
            for j in 0..8 {
                sum = L::pair_dot(sum, pairs(j), self.sums16.add(i * 16 + j * 2));
            }
            sum
        }
    }

    /// Ends a super-block: adds the values of each row times the scale of its activations.
    ///
    /// # Safety
    ///
    /// A block of the panel is left.
    #[inline(always)]
    unsafe fn add(&mut self, values: [L::Floats; R]) {
        // SAFETY: the scales are there, by the caller's promise, and so is what is one block further, or its end.
        unsafe {
            for (i, sum) in self.sums.iter_mut().enumerate() {
                *sum = L::fma(values[i], L::splat_float(*self.scale.add(i)), *sum);
            }
            self.scale = self.scale.add(self.padded);
            self.sums32 = self.sums32.add(self.padded * 8);
            self.sums16 = self.sums16.add(self.padded * 16);
        }
    }
}

/// `a - b * 2^SHIFT`.
///
/// # Safety
///
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn less<L: Lanes>(a: L::Ints, b: L::Ints, factor: i32) -> L::Ints {
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
                for plane in 0..2 {
                    prefetch_stream::<6>(p.add(plane * 320));
                    let scale = L::scales(p.add(K_SCALES + plane * TILE));
                    let nibbles = |j: usize| L::nibbles(L::bytes(p.add(j * 64)), plane);
                    let a = rows.a.add(plane * 32);
                    if FIFTH {
                        let masks = p.add(Q5K_FIFTHS + plane * 64);
                        scaled_dots::<L, R, 8, 31>(&mut sums, scale, a, |j| {
                            L::add_fifth(nibbles(j), masks.add(j * 8).cast::<u64>().read_unaligned())
                        });
                    } else {
                        scaled_dots::<L, R, 8, 15>(&mut sums, scale, a, nibbles);
                    }
                }
                rows.next_part();
            }
            let (d, dmin) = (L::halves(w), L::halves(w.add(32)));
            let mins = [0, 1, 2, 3].map(|part| L::pairs(w.add(HEADER + part * step + K_MINS)));
            let values = std::array::from_fn(|i| {
                let value = L::mul(L::floats(sums[i]), d);
                L::fnma(L::floats(rows.times_sums32(i, &mins)), dmin, value)
            });
            rows.add(values);
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
                for plane in 0..2 {
                    prefetch_stream::<7>(p.add(plane * 416));
                    let pairs = L::signed_pairs(p.add(Q6K_SCALES + plane * 32));
                    for half in 0..2 {
                        let a = rows.a.add(plane * 32 + half * 16);
                        scaled_dots::<L, R, 4, 63>(&mut sums, L::of_pairs(pairs, half), a, |j| {
                            let q = L::nibbles(L::bytes(p.add((half * 4 + j) * 64)), plane);
                            L::add_pairs(q, L::bytes(p.add(Q6K_HIGH + j * 64)), plane * 4 + half * 2)
                        });
                    }
                }
                rows.next_part();
            }
            let d = L::halves(w);
            let scales = w.add(HEADER + Q6K_SCALES);
            let values = std::array::from_fn(|i| {
                let of_scales =
                    rows.times_sums16(i, |j| L::signed_pairs(scales.add(j / 2 * Q6K_PART + j % 2 * 32)));
                // Quants are 32 too great.
                L::mul(L::floats(less::<L>(sums[i], of_scales, 32)), d)
            });
            rows.add(values);
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
            let values = std::array::from_fn(|i| {
                let of_mins = rows.times_sums16(i, |j| {
                    L::pair_nibbles(L::pairs(mins.add(j / 2 * Q2K_PART + j % 2 * 32)), 1)
                });
                L::fnma(L::floats(of_mins), dmin, L::mul(L::floats(sums[i]), d))
            });
            rows.add(values);
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
            let values = std::array::from_fn(|i| {
                let of_scales =
                    rows.times_sums16(i, |j| L::signed_pairs(scales.add(j / 2 * Q3K_PART + j % 2 * 32)));
                // Quants are 4 too great.
                L::mul(L::floats(less::<L>(sums[i], of_scales, 4)), d)
            });
            rows.add(values);
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
                for plane in 0..2 {
                    prefetch_stream::<5>(p.add(plane * 272));
                    let mut dots = [L::splat(0); R];
                    full_dots::<L, R, 8>(&mut dots, rows.a.add(plane * 32), |j| {
                        L::lookup(&IQ4_LEVELS, L::nibbles(L::bytes(p.add(j * 64)), plane))
                    });
                    let scale = L::ints_of_pairs(scales, plane);
                    for (sum, dots) in sums.iter_mut().zip(dots) {
                        *sum = L::mul_add(*sum, dots, scale);
                    }
                }
                rows.next_part();
            }
            let d = L::halves(w);
            let scales =
                [0, 1, 2, 3].map(|part| L::signed_pairs(w.add(HEADER + part * IQ4XS_PART + IQ4XS_SCALES)));
            let values = std::array::from_fn(|i| {
                // Levels are 128 too great.
                let exact =
                    if L::SIGNED { sums[i] } else { less::<L>(sums[i], rows.times_sums32(i, &scales), 128) };
                L::mul(L::floats(exact), d)
            });
            rows.add(values);
            w = w.add(IQ4XS_BYTES);
        }
        rows.sums
    }
}
