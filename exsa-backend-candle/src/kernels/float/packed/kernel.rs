//! Micro-kernel: a panel of activations times one or two tiles of weights, over one block of `k`.
//!
//! Written once in vectors; [`sets`](super::sets) compiles it for each instruction set. The sums of all rows
//! and tiles stay in registers; per value of `k`, a vector of weights serves all rows and a broadcast
//! activation all vectors. One value of `k` is one turn of the loop: from longer ones the compiler loads
//! weights before it needs them, and runs out of registers. Prefetches have no branches, and name a cache
//! line several times where a value of `k` has less than one.

use super::element::Element;
use super::matrix::TILE;
use crate::kernels::memory::prefetch::{prefetch, prefetch_near, prefetch_second_level};
use crate::kernels::simd::Vector;

/// Values of `k` whose products are added up before the sum joins the total.
pub(super) const BLOCK: usize = 256;

/// Operands and output of a kernel for `R` rows of activations and `T` tiles.
///
/// # Contract
///
/// - `weights` points to `len` times 16 weights of the first tile; those of the next tile are `tile_stride`
///   weights on;
/// - `x` points to `len` times `R` activations, `[k][R]`;
/// - `out` points to `R` rows, `out_stride` values apart, of `T` times 16 values that nobody else uses; with
///   `add` they are initialized.
pub(super) struct Block<E> {
    pub weights: *const E,
    pub tile_stride: usize,
    pub x: *const f32,
    pub len: usize,
    pub out: *mut f32,
    pub out_stride: usize,
    /// Whether the sums are added to what is there.
    pub add: bool,
    pub ahead: Ahead,
}

/// Weights that a kernel prefetches into the second-level cache while it multiplies others.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// Those of the first tile.
    pub at: *const u8,
    /// Bytes from one tile to the next.
    pub tile_stride: usize,
    /// Bytes of a tile for each value of `k`.
    pub step: usize,
}

/// Multiplies the panel with the tiles.
///
/// # Safety
///
/// The processor has the vector's instructions, the contract of [`Block`] holds for `R` and `T`, and `N`
/// vectors are `T` tiles.
#[inline(always)]
pub(super) unsafe fn multiply<V: Vector, E: Element, const R: usize, const T: usize, const N: usize>(
    block: &Block<E>,
) {
    const { assert!(N * V::LANES == T * TILE) };
    let Block { mut weights, tile_stride, mut x, len, out, out_stride, add, ahead } = *block;
    let mut far = ahead.at;
    if add {
        for r in 0..R {
            prefetch(out.wrapping_add(r * out_stride).cast(), T * TILE * size_of::<f32>());
        }
    }
    // SAFETY: operands and output are there, by the contract of `Block`.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; R];
        for _ in 0..len {
            for t in 0..T {
                prefetch_near::<1>(weights.wrapping_add(t * tile_stride).cast());
                prefetch_second_level(far.wrapping_add(t * ahead.tile_stride));
            }
            multiply_one::<V, E, R, N>(weights, tile_stride, x, &mut sums);
            weights = weights.wrapping_add(TILE);
            x = x.wrapping_add(R);
            far = far.wrapping_add(ahead.step);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let to = out.add(r * out_stride + n * V::LANES);
                let sum = if add { V::load(to).add(*sum) } else { *sum };
                sum.store(to);
            }
        }
    }
}

/// The products of one value of `k`.
///
/// # Safety
///
/// As of [`multiply`]: 16 weights of each tile and `R` activations are there.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the same indices everywhere show what stays in registers")]
unsafe fn multiply_one<V: Vector, E: Element, const R: usize, const N: usize>(
    weights: *const E,
    tile_stride: usize,
    x: *const f32,
    sums: &mut [[V; N]; R],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let weights = |n: usize| {
            let (tile, lane) = (n * V::LANES / TILE, n * V::LANES % TILE);
            E::load::<V>(weights.add(tile * tile_stride + lane))
        };
        // The operands of the shorter side stay in registers, those of the other come one by one.
        if R < N {
            let mut rows = [V::splat(0.0); R];
            for r in 0..R {
                rows[r] = V::splat(*x.add(r));
            }
            for n in 0..N {
                let w = weights(n);
                for r in 0..R {
                    sums[r][n] = rows[r].multiply_add(w, sums[r][n]);
                }
            }
        } else {
            let mut w = [V::splat(0.0); N];
            for n in 0..N {
                w[n] = weights(n);
            }
            for r in 0..R {
                let x = V::splat(*x.add(r));
                for n in 0..N {
                    sums[r][n] = x.multiply_add(w[n], sums[r][n]);
                }
            }
        }
    }
}

/// Converts `len` weights, a multiple of 16, to f32.
///
/// # Safety
///
/// The processor has the vector's instructions; `from` and `to` have `len` values.
#[inline(always)]
pub(super) unsafe fn convert<V: Vector, E: Element>(from: *const E, to: *mut f32, len: usize) {
    for at in (0..len).step_by(V::LANES) {
        // SAFETY: the values are there, by the caller's promise: 16 is a multiple of a vector.
        unsafe { E::load::<V>(from.add(at)).store(to.add(at)) };
    }
}

/// A loop of multiply-adds from registers, to compare kernels with. Returns the multiplications and additions
/// that it did.
///
/// # Safety
///
/// The processor has the vector's instructions.
#[inline(always)]
pub(super) unsafe fn peak<V: Vector>() -> u64 {
    const ROUNDS: u64 = 30_000;
    // SAFETY: the instructions are there, by the caller's promise.
    unsafe {
        let mut sums: [V; 10] = std::array::from_fn(|i| V::splat(i as f32));
        let factor = V::splat(std::hint::black_box(0.5));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = sum.multiply_add(factor, factor);
            }
        }
        std::hint::black_box(sums);
    }
    ROUNDS * 10 * 2 * V::LANES as u64
}
