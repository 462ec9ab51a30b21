//! Products of packed float weights, shared out to a team by tiles of weights.
//!
//! With a few panels of rows, each tile passes block by block of `k` through the first-level cache, and its
//! weights are converted on the way into the registers. With more, a group of tiles does so through the
//! second-level cache, where its weights are converted once for all panels. Meanwhile the weights of the next
//! block are prefetched, a part of them with each panel.

use super::activations::{FloatActivations, GROUP, Line, Panel, PanelRows, STREAMED_PANELS, Scratch};
use super::element::{Element, FloatType};
use super::kernel::{Ahead, BLOCK, Block};
use super::matrix::{FloatMatrix, TILE};
use super::sets;
use crate::kernels::ExpertRows;
use crate::kernels::memory::team::{Target, Team};
use crate::kernels::quantized::Isa;
use half::{bf16, f16};
use std::marker::PhantomData;
use std::ops::Range;

/// Maximum tiles that a thread takes at a time.
const GRAIN_MAX: usize = 16;

/// Multiplications, and bytes of weights, below which other threads are left alone: sharing costs a few
/// microseconds.
const SHARED_PRODUCTS_MIN: usize = 1 << 18;
const SHARED_BYTES_MIN: usize = 1 << 18;

/// A product that is computed together with others: of the same activations, to a matrix of its own.
pub(crate) struct FloatProduct<'a> {
    weights: &'a FloatMatrix,
    target: Target<f32>,
    len: usize,
    out: PhantomData<&'a mut [f32]>,
}

impl<'a> FloatProduct<'a> {
    /// The product with `weights`, to `out`, `[m, n]` row-major.
    pub fn new(weights: &'a FloatMatrix, out: &'a mut [f32]) -> Self {
        Self { weights, target: Target(out.as_mut_ptr()), len: out.len(), out: PhantomData }
    }
}

/// Computes all `products` of the rows of `acts`, which were filled in for `isa`, in one step of the team.
pub(crate) fn multiply_floats(
    isa: Isa,
    products: &[Option<FloatProduct<'_>>],
    acts: &mut FloatActivations,
    team: &mut Team,
) {
    multiply(isa, products, None, acts, team);
}

/// Computes all `products` of the groups that `acts` were filled in from for `isa`, each with the matrix of
/// its expert, in one step of the team.
pub(crate) fn multiply_float_groups(
    isa: Isa,
    products: &[Option<FloatProduct<'_>>],
    groups: &[ExpertRows],
    acts: &mut FloatActivations,
    team: &mut Team,
) {
    assert_eq!(groups.len(), acts.rows.len(), "activations of other groups");
    multiply(isa, products, Some(groups), acts, team);
}

/// The products of each group of rows with the matrix of its expert, or of all with the first matrix.
fn multiply(
    isa: Isa,
    products: &[Option<FloatProduct<'_>>],
    groups: Option<&[ExpertRows]>,
    acts: &mut FloatActivations,
    team: &mut Team,
) {
    let expert = |group: usize| groups.map_or(0, |groups| groups[group].expert);
    let rows_max = isa.floats().rows_max();
    assert!(acts.rows.iter().all(|rows| rows.m <= rows.panels * rows_max), "panels of another set");
    let panels = acts.rows.iter().map(|rows| rows.panels).max().unwrap_or(0);
    let (mut tiles, mut work, mut bytes, mut converting) = (0, 0, 0, false);
    for FloatProduct { weights, len, .. } in products.iter().flatten() {
        assert_eq!(acts.k, weights.k, "activations of another width");
        assert_eq!(*len, acts.m * weights.n, "the output has another shape");
        assert!((0..acts.rows.len()).all(|group| expert(group) < weights.count()), "an expert that is there");
        tiles += weights.tiles();
        work += acts.m * weights.n * weights.k;
        bytes += acts.rows.len() * weights.matrix_bytes();
        converting |= panels > STREAMED_PANELS && weights.kind != FloatType::F32;
    }
    if work == 0 {
        return;
    }
    acts.size_scratch(team.threads(), converting);
    let items = tiles * acts.rows.len();
    let grain = if work < SHARED_PRODUCTS_MIN && bytes < SHARED_BYTES_MIN {
        items
    } else {
        let most = if panels > STREAMED_PANELS { GROUP } else { GRAIN_MAX };
        let panel = acts.rows[0].panel(0);
        team.grain(items).min(most).next_multiple_of(isa.floats().tiles(panel.rows))
    };
    let mut scratch = std::mem::take(&mut acts.scratch);
    let shared = &*acts;
    team.for_each_with(&mut scratch, items, grain, |scratch, range| {
        // Tiles of the first group come first, those of all its products.
        let mut at = range.start;
        while at < range.end {
            let (group, before) = (at / tiles, at / tiles * tiles);
            let range = at - before..tiles.min(range.end - before);
            at = before + range.end;
            let rows = shared.rows[group];
            let mut first = 0;
            for FloatProduct { weights, target, .. } in products.iter().flatten() {
                let end = first + weights.tiles();
                let part = range.start.clamp(first, end) - first..range.end.clamp(first, end) - first;
                let first_tile = expert(group) * weights.tiles();
                let job = Job { isa, weights, first_tile, acts: shared, rows, target };
                // SAFETY: widths and the output's shape are checked above; tiles of a group are handed out
                // once, and so are their columns of its rows of an output that the product has to itself.
                unsafe { job.multiply(part, scratch) };
                first = end;
            }
        }
    });
    acts.scratch = scratch;
}

/// A matrix times the panels of some rows of activations.
struct Job<'a> {
    isa: Isa,
    weights: &'a FloatMatrix,
    /// First tile of the matrix in its stack.
    first_tile: usize,
    acts: &'a FloatActivations,
    rows: PanelRows,
    target: &'a Target<f32>,
}

impl Job<'_> {
    /// Multiplies the tiles of `range` into their columns of the matrix at `target`, `[m, n]`.
    ///
    /// # Safety
    ///
    /// The activations were filled in for the instruction set and have the width of the weights, `target` has
    /// a row of `n` columns for every row of them, and nobody else uses the columns of these tiles.
    unsafe fn multiply(&self, range: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: passed on; the elements are those of the matrix.
        unsafe {
            match self.weights.kind {
                FloatType::F32 => self.multiply_as::<f32>(range, scratch),
                FloatType::F16 => self.multiply_as::<f16>(range, scratch),
                FloatType::BF16 => self.multiply_as::<bf16>(range, scratch),
            }
        }
    }

    /// # Safety
    ///
    /// As of [`multiply`](Self::multiply), and `E` is the type of the weights.
    unsafe fn multiply_as<E: Element>(&self, range: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: passed on.
        unsafe {
            if self.rows.panels <= STREAMED_PANELS {
                self.multiply_streamed::<E>(range, scratch);
            } else {
                for start in range.clone().step_by(GROUP) {
                    self.multiply_cached::<E>(start..range.end.min(start + GROUP), scratch);
                }
            }
        }
    }

    /// A few panels: the weights of a block of `k` stay in the first-level cache.
    ///
    /// # Safety
    ///
    /// As of [`multiply_as`](Self::multiply_as).
    unsafe fn multiply_streamed<E: Element>(&self, range: Range<usize>, scratch: &mut Scratch) {
        let FloatMatrix { k, .. } = *self.weights;
        let at_once = self.isa.floats().tiles(self.rows.panel(0).rows);
        for tile in range.clone().step_by(at_once) {
            let tiles = tile..range.end.min(tile + at_once);
            for start in (0..k).step_by(BLOCK) {
                let (weights, stride) = (self.at::<E>(tile, start), k * TILE);
                for index in 0..self.rows.panels {
                    let panel = self.rows.panel(index);
                    let ahead = self.ahead(index, self.next::<E>(tile, start, at_once));
                    // SAFETY: the tiles are there; the rest is passed on.
                    unsafe { self.block(panel, tiles.clone(), start, (weights, stride), ahead, scratch) };
                }
            }
        }
    }

    /// Many panels, and at most [`GROUP`] tiles: their weights are read from memory once for each block of
    /// `k`, and from the second-level cache for each panel.
    ///
    /// # Safety
    ///
    /// As of [`multiply_as`](Self::multiply_as), and `scratch` has room for converted weights.
    unsafe fn multiply_cached<E: Element>(&self, range: Range<usize>, scratch: &mut Scratch) {
        let FloatMatrix { k, .. } = *self.weights;
        for start in (0..k).step_by(BLOCK) {
            let len = BLOCK.min(k - start);
            if !E::IS_F32 {
                for (i, tile) in range.clone().enumerate() {
                    let to = scratch.converted[i * BLOCK..][..len].as_mut_ptr().cast();
                    // SAFETY: the tile has `len` more values of `k`, and so has the scratch memory.
                    unsafe { sets::convert(self.isa, self.at::<E>(tile, start), to, len * TILE) };
                }
            }
            for index in 0..self.rows.panels {
                let panel = self.rows.panel(index);
                let at_once = self.isa.floats().tiles(panel.rows);
                for tile in range.clone().step_by(at_once) {
                    let ahead = self.ahead(index, self.next::<E>(tile, start, range.len()));
                    let weights = if E::IS_F32 {
                        (self.at::<E>(tile, start).cast::<f32>(), k * TILE)
                    } else {
                        let converted = scratch.converted[(tile - range.start) * BLOCK..].as_ptr();
                        (converted.cast(), BLOCK * TILE)
                    };
                    let tiles = tile..range.end.min(tile + at_once);
                    // SAFETY: the tiles are there, in f32; the rest is passed on.
                    unsafe { self.block(panel, tiles, start, weights, ahead, scratch) };
                }
            }
        }
    }

    /// The weights of `tile` of the matrix from column `k` on; they may lie past the end.
    fn at<E: Element>(&self, tile: usize, k: usize) -> *const E {
        self.weights.at(self.first_tile + tile, k)
    }

    /// The weights of `tile` that follow the block of `k` at `start`, or of the tile `group` on after the
    /// last block; they may lie past the end.
    fn next<E: Element>(&self, tile: usize, start: usize, group: usize) -> *const E {
        let next = start + BLOCK;
        if next < self.weights.k { self.at(tile, next) } else { self.at(tile + group, 0) }
    }

    /// The part that panel `index` prefetches of the block of weights at `next`.
    fn ahead<E: Element>(&self, index: usize, next: *const E) -> Ahead {
        let tile_stride = self.weights.k * TILE * size_of::<E>();
        let step = (TILE * size_of::<E>()).div_ceil(self.rows.panels);
        let (first, end) = (index * step * BLOCK, TILE * size_of::<E>() * BLOCK);
        let at = next.cast::<u8>();
        if first < end {
            Ahead { at: at.wrapping_add(first), tile_stride, step }
        } else {
            Ahead { at, tile_stride, step: 0 }
        }
    }

    /// Multiplies one panel with one or two tiles over the block of `k` that begins at `start`, with the
    /// weights `[tile][k][16]` and their tile stride.
    ///
    /// # Safety
    ///
    /// As of [`multiply`](Self::multiply), and the weights are there.
    unsafe fn block<E: Element>(
        &self,
        panel: Panel,
        tiles: Range<usize>,
        start: usize,
        (weights, tile_stride): (*const E, usize),
        ahead: Ahead,
        scratch: &mut Scratch,
    ) {
        let FloatMatrix { n, k, .. } = *self.weights;
        let (column, width) = (tiles.start * TILE, tiles.len() * TILE);
        let columns = width.min(n - column);
        let out = self.target.at(panel.start * n + column);
        let (x, len, add) = (self.acts.at(panel, start), BLOCK.min(k - start), start > 0);
        let block = Block { weights, tile_stride, x, len, out, out_stride: n, add, ahead };
        if columns == width {
            // SAFETY: weights, activations and the columns of the output are there, by the caller's promise.
            return unsafe { sets::multiply(self.isa, panel.rows, tiles.len(), &block) };
        }
        let sums: *mut f32 = scratch.edge.as_mut_ptr().cast();
        let block = Block { out: sums, out_stride: width, add: false, ..block };
        // SAFETY: as above; the scratch memory has room for the sums of every panel.
        unsafe { sets::multiply(self.isa, panel.rows, tiles.len(), &block) };
        for row in 0..panel.rows {
            for i in 0..columns {
                // SAFETY: the sums were written, and the output has these columns.
                unsafe {
                    let (sum, to) = (*sums.add(row * width + i), out.add(row * n + i));
                    *to = if add { *to + sum } else { sum };
                }
            }
        }
    }
}

const _: () = assert!(size_of::<Line>() == TILE * size_of::<f32>());
