//! Products with weights that are dequantized to f32 tile by tile: exact up to f32's rounding.
//!
//! For types without a packed form.

use super::matmul::SHARED_PRODUCTS_MIN;
use crate::kernels::float::matmul::matmul_f32;
use crate::kernels::memory::buffer::resize;
use crate::kernels::memory::team::Team;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes of dequantized weights that stay in a core's cache while all rows of the left pass by.
const TILE_BYTES: usize = 256 << 10;

/// Rows of weights in a tile where the left is too short to make use of a cache.
const SHORT_TILE_ROWS: usize = 16;

thread_local! {
    /// Weights of a tile in f32, and their products: kept, so that the steady state allocates nothing.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Rows of weights in a tile.
fn tile_rows(m: usize, k: usize) -> usize {
    if m < 8 { SHORT_TILE_ROWS } else { (TILE_BYTES / (4 * k)).clamp(4, 64) / 4 * 4 }
}

/// Whether several threads share a product; of others the caller's thread needs scratch memory alone.
pub(crate) fn is_shared(m: usize, k: usize, n: usize) -> bool {
    m.saturating_mul(k).saturating_mul(n) >= SHARED_PRODUCTS_MIN
}

/// Floats of a thread's scratch memory for products of up to `m` rows with weights of `k` columns and `n`
/// rows: of dequantized weights, and of their products.
pub(crate) fn scratch_floats(m: usize, k: usize, n: usize) -> (usize, usize) {
    let rows = |m: usize| tile_rows(m, k).min(n);
    let floats = |m: usize| (rows(m) * k, m * rows(m));
    // Of few rows the tiles may be the larger ones.
    let ((weights, products), (few_weights, few_products)) = (floats(m), floats(m.min(7)));
    (weights.max(few_weights), products.max(few_products))
}

/// Multiplies each of the `m` rows of `left`, `[m, k]`, with each of `n` rows of weights: `out`, `[m, n]`.
/// `dequantize` writes the weights from a row on, as many whole rows as it is given room for. On this thread
/// alone where there is little to do.
pub(crate) fn matmul(
    (m, k, n): (usize, usize, usize),
    left: &[f32],
    dequantize: impl Fn(usize, &mut [f32]) + Sync,
    out: &mut [f32],
    team: &mut Team,
) {
    if k == 0 || n == 0 {
        return out.fill(0.0);
    }
    let tile_rows = tile_rows(m, k);
    let out = Mutex::new(out);
    let tiles = n.div_ceil(tile_rows);
    let work = |tiles: Range<usize>| {
        SCRATCH.with_borrow_mut(|(weights, part)| {
            for first in tiles.map(|tile| tile * tile_rows) {
                let rows = tile_rows.min(n - first);
                resize(weights, rows * k);
                dequantize(first, weights);
                resize(part, m * rows);
                matmul_f32(left, weights, k, part);
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                for (part, out) in part.chunks_exact(rows).zip(out.chunks_exact_mut(n)) {
                    out[first..first + rows].copy_from_slice(part);
                }
            }
        });
    };
    if is_shared(m, k, n) {
        team.for_each(tiles, team.grain(tiles), work);
    } else {
        work(0..tiles);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_end_up_in_their_place() {
        for (m, k, n) in [(1, 6, 37), (9, 6, 131), (3, 2, 1), (20, 40_000, 9)] {
            let weights: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let left: Vec<f32> = (0..m * k).map(|i| (i % 5) as f32).collect();
            let mut out = vec![f32::NAN; m * n];
            let mut team = Team::new(3).unwrap();
            let rows = |first: usize, rows: &mut [f32]| {
                rows.copy_from_slice(&weights[first * k..][..rows.len()]);
            };
            matmul((m, k, n), &left, rows, &mut out, &mut team);
            for i in 0..m {
                for j in 0..n {
                    let pairs = left[i * k..][..k].iter().zip(&weights[j * k..][..k]);
                    assert_eq!(out[i * n + j], pairs.map(|(a, b)| a * b).sum::<f32>());
                }
            }
        }
    }
}
