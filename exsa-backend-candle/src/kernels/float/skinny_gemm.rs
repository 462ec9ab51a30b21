//! Skinny GEMM: a few rows times the keys or values of a block, the two loops that attention spends its time
//! in.
//!
//! `out[r][n] (+)= Σ a[r][k] · b[k][n]`, with `n` along vector registers and `k` in order for every `r` and
//! `n`: the result of a row does not depend on how many rows are computed at once.

use super::kv_layout::{GROUP, SCALED};
use crate::kernels::simd::Vector;
use half::f16;

/// Rows at a time with up to two vectors, and with four: the sums stay in registers.
const ROWS_NARROW: usize = 8;
const ROWS_WIDE: usize = 6;

/// Element type of the KV cache.
pub(crate) trait KvElement: Copy {
    /// Whether elements are multiplied by a scale.
    const SCALED: bool;

    /// A vector of them as f32.
    ///
    /// # Safety
    ///
    /// The processor has the vector's instructions, and as many numbers are there.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
}

impl KvElement for f32 {
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
}

impl KvElement for f16 {
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(from) }
    }
}

impl KvElement for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_i8(from) }
    }
}

/// Right operand: a matrix whose rows are read as vectors.
pub(crate) trait Operand<V: Vector>: Copy {
    /// Scale of vector `n` in the rows `k..k + 32`, for `k` a multiple of 32.
    ///
    /// # Safety
    ///
    /// The processor has the vector's instructions, and the matrix has such rows and vectors.
    unsafe fn scale(&self, k: usize, n: usize) -> V;

    /// Vector `n` of row `k`.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn at(&self, k: usize, n: usize, scale: V) -> V;
}

/// Transposed keys: row `k` is coordinate `k`, along the tokens.
#[derive(Clone, Copy)]
pub(crate) struct Keys<T> {
    /// `[tokens / 16][head_dim][16]`.
    pub elements: *const T,
    /// `[tokens / 16][scales][16]`.
    pub scale: *const f32,
    /// Coordinates of a key.
    pub head_dim: usize,
    /// Scales of a key.
    pub scales: usize,
}

impl<V: Vector, T: KvElement> Operand<V> for Keys<T> {
    #[inline(always)]
    unsafe fn scale(&self, k: usize, n: usize) -> V {
        let (group, lane) = (n * V::LANES / GROUP, n * V::LANES % GROUP);
        // SAFETY: the caller's promise.
        unsafe {
            if T::SCALED {
                V::load(self.scale.add((group * self.scales + k / SCALED) * GROUP + lane))
            } else {
                V::splat(0.0)
            }
        }
    }

    #[inline(always)]
    unsafe fn at(&self, k: usize, n: usize, scale: V) -> V {
        let (group, lane) = (n * V::LANES / GROUP, n * V::LANES % GROUP);
        // SAFETY: the caller's promise.
        unsafe {
            let x: V = T::load(self.elements.add((group * self.head_dim + k) * GROUP + lane));
            if T::SCALED { x.multiply(scale) } else { x }
        }
    }
}

/// Values: row `k` is token `k`, along the coordinates.
#[derive(Clone, Copy)]
pub(crate) struct Values<T> {
    /// `[tokens][room]`.
    pub elements: *const T,
    /// `[tokens][scales]`.
    pub scale: *const f32,
    /// Numbers from one token to the next.
    pub room: usize,
    /// Scales of a value.
    pub scales: usize,
}

impl<V: Vector, T: KvElement> Operand<V> for Values<T> {
    #[inline(always)]
    unsafe fn scale(&self, _: usize, _: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn at(&self, k: usize, n: usize, _: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let x: V = T::load(self.elements.add(k * self.room + n * V::LANES));
            if T::SCALED {
                x.multiply(V::splat(*self.scale.add(k * self.scales + n * V::LANES / SCALED)))
            } else {
                x
            }
        }
    }
}

/// Left operand: rows of f32 in memory.
#[derive(Clone, Copy)]
pub(crate) struct Lhs {
    /// The first.
    pub at: *const f32,
    /// From one to the next.
    pub stride: usize,
    /// How many.
    pub rows: usize,
    /// Numbers in a row that are multiplied.
    pub len: usize,
}

/// Rows of sums in memory.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    /// The first.
    pub at: *mut f32,
    /// From one to the next.
    pub stride: usize,
    /// Whether products are added to what is there.
    pub add: bool,
}

/// Multiplies `lhs` with vectors `0..vectors` of `b`.
///
/// # Safety
///
/// The processor has the vector's instructions; `lhs`, `b` and `out` are that large, and nobody else uses
/// `out`.
#[inline(always)]
pub(crate) unsafe fn multiply<V: Vector, B: Operand<V>>(lhs: Lhs, b: B, vectors: usize, out: Sums) {
    // Of 32 registers, 24 hold sums; of 16, 12 or fewer.
    let wide = V::LANES >= 16;
    let mut n = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while wide && n + 4 <= vectors {
            rows::<V, B, 4>(lhs, b, n, out);
            n += 4;
        }
        while n + 2 <= vectors {
            rows::<V, B, 2>(lhs, b, n, out);
            n += 2;
        }
        if n < vectors {
            rows::<V, B, 1>(lhs, b, n, out);
        }
    }
}

/// All rows with `N` vectors from `first` on, in parts as equal as can be.
///
/// # Safety
///
/// As of [`multiply`], and `b` has vectors `first..first + N`.
#[inline(always)]
unsafe fn rows<V: Vector, B: Operand<V>, const N: usize>(lhs: Lhs, b: B, first: usize, out: Sums) {
    let most = if N > 2 || V::LANES < 16 { ROWS_WIDE } else { ROWS_NARROW };
    let mut done = 0;
    while done < lhs.rows {
        let rest = lhs.rows - done;
        let rows = rest.div_ceil(rest.div_ceil(most));
        // SAFETY: the rows are there, by the caller's promise.
        unsafe {
            let lhs = Lhs { at: lhs.at.add(done * lhs.stride), ..lhs };
            let out = Sums { at: out.at.add(done * out.stride), ..out };
            match rows {
                1 => tile::<V, B, 1, N>(lhs, b, first, out),
                2 => tile::<V, B, 2, N>(lhs, b, first, out),
                3 => tile::<V, B, 3, N>(lhs, b, first, out),
                4 => tile::<V, B, 4, N>(lhs, b, first, out),
                5 => tile::<V, B, 5, N>(lhs, b, first, out),
                6 => tile::<V, B, 6, N>(lhs, b, first, out),
                7 if N <= 2 => tile::<V, B, 7, N>(lhs, b, first, out),
                _ if N <= 2 => tile::<V, B, 8, N>(lhs, b, first, out),
                _ => {}
            }
        }
        done += rows;
    }
}

/// `R` rows with `N` vectors from `first` on: all sums stay in registers.
///
/// # Safety
///
/// As of [`multiply`]; `lhs` and `out` have `R` rows, and `b` has vectors `first..first + N`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the same indices everywhere show what stays in registers")]
unsafe fn tile<V: Vector, B: Operand<V>, const R: usize, const N: usize>(
    lhs: Lhs,
    b: B,
    first: usize,
    out: Sums,
) {
    // SAFETY: rows and vectors are there, by the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; R];
        if out.add {
            for r in 0..R {
                for n in 0..N {
                    sums[r][n] = V::load(out.at.add(r * out.stride + (first + n) * V::LANES));
                }
            }
        }
        let mut k = 0;
        while k < lhs.len {
            let end = lhs.len.min(k + SCALED);
            let mut scales = [V::splat(0.0); N];
            for n in 0..N {
                scales[n] = b.scale(k, first + n);
            }
            while k < end {
                let mut row = [V::splat(0.0); N];
                for n in 0..N {
                    row[n] = b.at(k, first + n, scales[n]);
                }
                for r in 0..R {
                    let x = V::splat(*lhs.at.add(r * lhs.stride + k));
                    for n in 0..N {
                        sums[r][n] = x.multiply_add(row[n], sums[r][n]);
                    }
                }
                k += 1;
            }
        }
        for r in 0..R {
            for n in 0..N {
                sums[r][n].store(out.at.add(r * out.stride + (first + n) * V::LANES));
            }
        }
    }
}
