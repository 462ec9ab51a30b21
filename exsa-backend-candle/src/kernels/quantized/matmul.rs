//! Products of packed weights and quantized activations, shared out to a team by tiles of weights.

use super::activations::{Activations, Panel};
use super::args::Args;
use super::isa::Isa;
use super::layout::TILE;
use super::packed_matrix::PackedMatrix;
use super::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use super::x86::amx;
use crate::kernels::memory::team::{Target, Team};
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes of weights that stay in the second-level cache while all rows pass over them.
const CACHED_BYTES: usize = 256 << 10;

/// Maximum tiles that a thread takes at a time.
const GRAIN_MAX: usize = 16;

/// Multiplications below which other threads are left alone: sharing costs a few microseconds.
pub(super) const SHARED_PRODUCTS_MIN: usize = 1 << 18;

impl PackedMatrix {
    /// `out = x · Wᵀ`: `out` is `[m, n]` row-major, for the `m` rows that `acts` was quantized from.
    pub fn multiply(&self, isa: Isa, acts: &mut Activations, team: &mut Team, out: &mut [f32]) {
        multiply_all(isa, &[Some(Product::new(self, out))], acts, team);
    }

    /// Tiles that are multiplied with all rows while they are in the cache. One panel reads each tile once.
    fn group(&self, isa: Isa, acts: &Activations) -> usize {
        #[cfg(target_arch = "x86_64")]
        if !self.whole_panels(isa, acts).is_empty() {
            return amx::GROUP;
        }
        let _ = isa;
        if acts.panels.len() == 1 { 1 } else { (CACHED_BYTES / self.tile_bytes()).max(1) }
    }

    /// The panels that AMX tiles multiply, which come before all others.
    #[cfg(target_arch = "x86_64")]
    fn whole_panels<'a>(&self, isa: Isa, acts: &'a Activations) -> &'a [Panel] {
        let whole = acts.panels.iter().take_while(|panel| panel.rows == TILE).count();
        let enough = isa.has_amx() && amx::rows_min(self.kind).is_some_and(|rows| whole * TILE >= rows);
        &acts.panels[..if enough { whole } else { 0 }]
    }

    /// Multiplies the tiles of `range` into their columns of the matrix at `target`, `[m, n]`.
    ///
    /// # Safety
    ///
    /// `acts` was quantized for this matrix, `target` has a row of `n` columns for every row of it, and
    /// nobody else uses the columns of these tiles.
    unsafe fn multiply_tiles(
        &self,
        isa: Isa,
        acts: &Activations,
        range: Range<usize>,
        target: &Target<f32>,
        scratch: &mut Scratch,
    ) {
        let panels = acts.panels.as_slice();
        #[cfg(not(target_arch = "x86_64"))]
        let () = scratch;
        #[cfg(target_arch = "x86_64")]
        let panels = {
            let whole = self.whole_panels(isa, acts);
            let weights = self.bytes();
            let job = amx::Job {
                kind: self.kind,
                weights,
                super_blocks: self.super_blocks(),
                acts,
                out: target,
                n: self.n,
            };
            // SAFETY: there are whole panels only where the token has AMX; the rest is passed on.
            unsafe { amx::multiply(&job, whole, range.clone(), scratch) };
            &panels[whole.len()..]
        };
        // SAFETY: passed on; the panels are the rest of those of `acts`.
        unsafe { self.multiply_panels(isa, acts, panels, range, target) }
    }

    /// The same for some of the panels.
    ///
    /// # Safety
    ///
    /// As of [`multiply_tiles`](Self::multiply_tiles), and `panels` are of `acts`.
    unsafe fn multiply_panels(
        &self,
        isa: Isa,
        acts: &Activations,
        panels: &[Panel],
        range: Range<usize>,
        target: &Target<f32>,
    ) {
        let (tile_bytes, group) = (self.tile_bytes(), self.group(isa, acts));
        for start in range.clone().step_by(group) {
            for panel in panels {
                for tile in start..range.end.min(start + group) {
                    let weights = &self.bytes()[tile * tile_bytes..][..tile_bytes];
                    let column = tile * TILE;
                    let columns = TILE.min(self.n - column);
                    let out = target.at(panel.start * self.n + column);
                    let (weights, out) = ((weights, self.super_blocks()), (out, self.n, columns));
                    // SAFETY: a tile is whole super-blocks of the matrix's kind; the rest is the caller's
                    // promise.
                    let args = unsafe { Args::new(self.kind, acts, *panel, weights, out) };
                    // SAFETY: the arguments are of this kind.
                    unsafe { isa.multiply(self.kind, &args) };
                }
            }
        }
    }
}

/// A product that is computed together with others: of the same activations, to a matrix of its own.
pub struct Product<'a> {
    weights: &'a PackedMatrix,
    target: Target<f32>,
    len: usize,
    out: PhantomData<&'a mut [f32]>,
}

impl<'a> Product<'a> {
    /// The product with `weights`, to `out`, `[m, n]` row-major.
    pub fn new(weights: &'a PackedMatrix, out: &'a mut [f32]) -> Self {
        Self { weights, target: Target(out.as_mut_ptr()), len: out.len(), out: PhantomData }
    }
}

/// Computes all `products` of the rows that `acts` was quantized from, in one step of the team.
pub fn multiply_all(isa: Isa, products: &[Option<Product<'_>>], acts: &mut Activations, team: &mut Team) {
    let m: usize = acts.panels.iter().map(|panel| panel.rows).sum();
    let (mut tiles, mut work, mut group) = (0, 0, 1);
    for Product { weights, len, .. } in products.iter().flatten() {
        assert_eq!(
            acts.k_padded,
            weights.k.next_multiple_of(weights.kind.super_block()),
            "activations of another width"
        );
        assert_eq!(acts.block, weights.kind.activation_block(), "activations quantized for another kind");
        assert_eq!(*len, m * weights.n, "the output has another shape");
        tiles += weights.tiles();
        work += m * weights.n * weights.k;
        group = group.max(weights.group(isa, acts));
    }
    let grain = team.grain(tiles).min(GRAIN_MAX).next_multiple_of(group);
    let grain = if work < SHARED_PRODUCTS_MIN { tiles } else { grain };
    let mut scratch = std::mem::take(&mut acts.scratch);
    // For every thread before any works: a helper may come to its first product at any time.
    scratch.reserve_exact(team.threads().saturating_sub(scratch.len()));
    scratch.resize_with(team.threads().max(scratch.len()), Scratch::default);
    let shared = &*acts;
    team.for_each_with(&mut scratch, tiles, grain, |scratch, range| {
        let mut first = 0;
        for Product { weights, target, .. } in products.iter().flatten() {
            let end = first + weights.tiles();
            let part = range.start.clamp(first, end) - first..range.end.clamp(first, end) - first;
            // SAFETY: widths, blocks and the output's shape are checked above; tiles are handed out once, and
            // so are their columns of an output that the product has to itself. `isa` stands for the
            // instructions.
            unsafe { weights.multiply_tiles(isa, shared, part, target, scratch) };
            first = end;
        }
    });
    acts.scratch = scratch;
}
