//! Products of packed float weights, shared out to a team by tiles of weights.
//!
//! Up to [`rows_max`](super::FloatSet::rows_max) rows are one panel: each tile is read once, from memory, and
//! converted on the way into the registers. With more rows a group of tiles passes block by block of `k`: its
//! weights are converted once and stay in the second-level cache while all panels pass by, and meanwhile the
//! weights of the next block are prefetched.

use super::activations::{FloatActivations, GROUP, Line, Panel, Scratch};
use super::element::{Element, FloatType};
use super::kernel::{Ahead, BLOCK, Block, STEP};
use super::matrix::{FloatMatrix, TILE};
use super::sets;
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
    assert!(acts.m <= acts.panels * isa.floats().rows_max(), "panels of another instruction set");
    let (mut tiles, mut work, mut bytes, mut converting) = (0, 0, 0, false);
    for FloatProduct { weights, len, .. } in products.iter().flatten() {
        assert_eq!(acts.k, weights.k, "activations of another width");
        assert_eq!(*len, acts.m * weights.n, "the output has another shape");
        tiles += weights.tiles();
        work += acts.m * weights.n * weights.k;
        bytes += weights.bytes().len();
        converting |= acts.panels > 1 && weights.kind != FloatType::F32;
    }
    if work == 0 {
        return;
    }
    acts.size_scratch(team.threads(), converting);
    let grain = if work < SHARED_PRODUCTS_MIN && bytes < SHARED_BYTES_MIN {
        tiles
    } else {
        let most = if acts.panels > 1 { GROUP } else { GRAIN_MAX };
        team.grain(tiles).min(most).next_multiple_of(isa.floats().tiles(acts.panel(0).rows))
    };
    let mut scratch = std::mem::take(&mut acts.scratch);
    let shared = &*acts;
    team.for_each_with(&mut scratch, tiles, grain, |scratch, range| {
        let mut first = 0;
        for FloatProduct { weights, target, .. } in products.iter().flatten() {
            let end = first + weights.tiles();
            let part = range.start.clamp(first, end) - first..range.end.clamp(first, end) - first;
            let job = Job { isa, weights, acts: shared, target };
            // SAFETY: widths and the output's shape are checked above; tiles are handed out once, and so are
            // their columns of an output that the product has to itself.
            unsafe { job.multiply(part, scratch) };
            first = end;
        }
    });
    acts.scratch = scratch;
}

/// A matrix times all panels of activations.
struct Job<'a> {
    isa: Isa,
    weights: &'a FloatMatrix,
    acts: &'a FloatActivations,
    target: &'a Target<f32>,
}

impl Job<'_> {
    /// Multiplies the tiles of `range` into their columns of the matrix at `target`, `[m, n]`.
    ///
    /// # Safety
    ///
    /// The activations were filled in for the instruction set and have the width of the weights, `target` has a
    /// row of `n` columns for every row of them, and nobody else uses the columns of these tiles.
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
            if self.acts.panels == 1 {
                self.multiply_streamed::<E>(range, scratch);
            } else {
                for start in range.clone().step_by(GROUP) {
                    self.multiply_cached::<E>(start..range.end.min(start + GROUP), scratch);
                }
            }
        }
    }

    /// One panel: the weights are read once.
    ///
    /// # Safety
    ///
    /// As of [`multiply_as`](Self::multiply_as).
    unsafe fn multiply_streamed<E: Element>(&self, range: Range<usize>, scratch: &mut Scratch) {
        let FloatMatrix { k, .. } = *self.weights;
        let panel = self.acts.panel(0);
        let at_once = self.isa.floats().tiles(panel.rows);
        for tile in range.clone().step_by(at_once) {
            let tiles = tile..range.end.min(tile + at_once);
            for start in (0..k).step_by(BLOCK) {
                let ahead = Ahead {
                    at: self.next::<E>(tile, start, at_once).cast(),
                    tile_stride: k * TILE * size_of::<E>(),
                    lines: STEP * TILE * size_of::<E>() / 64,
                };
                let (weights, stride) = (self.weights.at::<E>(tile, start), k * TILE);
                // SAFETY: the tiles are there; the rest is passed on.
                unsafe { self.block(panel, tiles.clone(), start, (weights, stride), ahead, scratch) };
            }
        }
    }

    /// Several panels, and at most [`GROUP`] tiles: their weights are read from memory once for each block of
    /// `k`, and from the second-level cache for each panel.
    ///
    /// # Safety
    ///
    /// As of [`multiply_as`](Self::multiply_as), and `scratch` has room for converted weights.
    unsafe fn multiply_cached<E: Element>(&self, range: Range<usize>, scratch: &mut Scratch) {
        let FloatMatrix { k, .. } = *self.weights;
        let panels = self.acts.panels;
        let block_lines = BLOCK * TILE * size_of::<E>() / 64;
        let lines = block_lines.div_ceil(panels).div_ceil(BLOCK / STEP);
        for start in (0..k).step_by(BLOCK) {
            let len = BLOCK.min(k - start);
            if !E::IS_F32 {
                for (i, tile) in range.clone().enumerate() {
                    let to = scratch.converted[i * BLOCK..][..len].as_mut_ptr().cast();
                    // SAFETY: the tile has `len` more values of `k`, and so has the scratch memory.
                    unsafe { sets::convert(self.isa, self.weights.at::<E>(tile, start), to, len * TILE) };
                }
            }
            for index in 0..panels {
                let panel = self.acts.panel(index);
                let at_once = self.isa.floats().tiles(panel.rows);
                // Each panel prefetches a part of the next block.
                let first_line = index * lines * (BLOCK / STEP);
                let lines = if first_line < block_lines { lines } else { 0 };
                for tile in range.clone().step_by(at_once) {
                    let ahead = Ahead {
                        at: self
                            .next::<E>(tile, start, range.len())
                            .cast::<u8>()
                            .wrapping_add(first_line * 64),
                        tile_stride: k * TILE * size_of::<E>(),
                        lines,
                    };
                    let weights = if E::IS_F32 {
                        (self.weights.at::<E>(tile, start).cast::<f32>(), k * TILE)
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

    /// The weights of `tile` that follow the block of `k` at `start`, or of the tile `group` on after the last
    /// block; they may lie past the end.
    fn next<E: Element>(&self, tile: usize, start: usize, group: usize) -> *const E {
        let next = start + BLOCK;
        if next < self.weights.k { self.weights.at(tile, next) } else { self.weights.at(tile + group, 0) }
    }

    /// Multiplies one panel with one or two tiles over the block of `k` that begins at `start`, with the weights
    /// `[tile][k][16]` and their tile stride.
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
