//! Products of packed weights and quantized activations, shared out to a team by tiles of weights.

use super::activations::{Activations, Panel};
use super::args::Args;
use super::isa::Isa;
use super::layout::TILE;
use super::packed_matrix::PackedMatrix;
use super::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use super::x86::amx;
use crate::kernels::ExpertRows;
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

    /// Tiles that are multiplied with all `panels` while they are in the cache. One panel reads each tile
    /// once.
    fn group(&self, isa: Isa, panels: &[Panel]) -> usize {
        #[cfg(target_arch = "x86_64")]
        if !self.whole_panels(isa, panels).is_empty() {
            return amx::GROUP;
        }
        let _ = isa;
        if panels.len() == 1 { 1 } else { (CACHED_BYTES / self.tile_bytes()).max(1) }
    }

    /// Those of `panels` that AMX tiles multiply, which come before all others.
    #[cfg(target_arch = "x86_64")]
    fn whole_panels<'a>(&self, isa: Isa, panels: &'a [Panel]) -> &'a [Panel] {
        let whole = panels.iter().take_while(|panel| panel.rows == TILE).count();
        let enough = isa.has_amx() && amx::rows_min(self.kind).is_some_and(|rows| whole * TILE >= rows);
        &panels[..if enough { whole } else { 0 }]
    }
}

/// One matrix of a stack times some panels of activations.
struct Job<'a> {
    isa: Isa,
    weights: &'a PackedMatrix,
    /// Bytes of the matrix.
    bytes: &'a [u8],
    acts: &'a Activations,
    panels: &'a [Panel],
    /// The matrix that the products go to, `[m, n]`.
    target: &'a Target<f32>,
}

impl Job<'_> {
    /// Multiplies the tiles of `range` into their columns of the target.
    ///
    /// # Safety
    ///
    /// `acts` was quantized for this matrix and has `panels`, the target has a row of `n` columns for every
    /// row of them, and nobody else uses the columns of these tiles in these rows.
    unsafe fn multiply(&self, range: Range<usize>, scratch: &mut Scratch) {
        let panels = self.panels;
        #[cfg(not(target_arch = "x86_64"))]
        let () = scratch;
        #[cfg(target_arch = "x86_64")]
        let panels = {
            let whole = self.weights.whole_panels(self.isa, panels);
            let job = amx::Job {
                kind: self.weights.kind,
                weights: self.bytes,
                super_blocks: self.weights.super_blocks(),
                acts: self.acts,
                out: self.target,
                n: self.weights.n,
            };
            // SAFETY: there are whole panels only where the token has AMX; the rest is passed on.
            unsafe { amx::multiply(&job, whole, range.clone(), scratch) };
            &panels[whole.len()..]
        };
        // SAFETY: passed on; the panels are the rest.
        unsafe { self.multiply_panels(panels, range) }
    }

    /// The same for some of the panels.
    ///
    /// # Safety
    ///
    /// As of [`multiply`](Self::multiply).
    unsafe fn multiply_panels(&self, panels: &[Panel], range: Range<usize>) {
        let Self { isa, weights, bytes, acts, target, .. } = *self;
        let (tile_bytes, group, n) = (weights.tile_bytes(), weights.group(isa, self.panels), weights.n);
        for start in range.clone().step_by(group) {
            for panel in panels {
                for tile in start..range.end.min(start + group) {
                    let tile_weights = &bytes[tile * tile_bytes..][..tile_bytes];
                    let column = tile * TILE;
                    let columns = TILE.min(n - column);
                    let out = target.at(panel.start * n + column);
                    let (tile_weights, out) = ((tile_weights, weights.super_blocks()), (out, n, columns));
                    // SAFETY: a tile is whole super-blocks of the matrix's kind; the rest is the caller's
                    // promise.
                    let args = unsafe { Args::new(weights.kind, acts, *panel, tile_weights, out) };
                    // SAFETY: the arguments are of this kind.
                    unsafe { isa.multiply(weights.kind, &args) };
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
    multiply(isa, products, None, acts, team);
}

/// Computes all `products` of the groups that `acts` were quantized for, each with the matrix of its expert,
/// in one step of the team.
pub fn multiply_groups(
    isa: Isa,
    products: &[Option<Product<'_>>],
    groups: &[ExpertRows],
    acts: &mut Activations,
    team: &mut Team,
) {
    assert_eq!(groups.len(), acts.group_ends.len(), "activations of other groups");
    multiply(isa, products, Some(groups), acts, team);
}

/// The products of each group of rows with the matrix of its expert, or of all with the first matrix.
fn multiply(
    isa: Isa,
    products: &[Option<Product<'_>>],
    groups: Option<&[ExpertRows]>,
    acts: &mut Activations,
    team: &mut Team,
) {
    let expert = |group: usize| groups.map_or(0, |groups| groups[group].expert);
    let n_groups = acts.group_ends.len();
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
        for index in 0..n_groups {
            assert!(expert(index) < weights.count(), "an expert that is there");
            group = group.max(weights.group(isa, acts.group(index)));
        }
    }
    let items = tiles * n_groups;
    let grain = team.grain(items).min(GRAIN_MAX).next_multiple_of(group);
    let grain = if work < SHARED_PRODUCTS_MIN { items } else { grain };
    let mut scratch = std::mem::take(&mut acts.scratch);
    // For every thread before any works: a helper may come to its first product at any time.
    scratch.reserve_exact(team.threads().saturating_sub(scratch.len()));
    scratch.resize_with(team.threads().max(scratch.len()), Scratch::default);
    let shared = &*acts;
    team.for_each_with(&mut scratch, items, grain, |scratch, range| {
        // Tiles of the first group come first, those of all its products.
        let mut at = range.start;
        while at < range.end {
            let (index, before) = (at / tiles, at / tiles * tiles);
            let range = at - before..tiles.min(range.end - before);
            at = before + range.end;
            let mut first = 0;
            for Product { weights, target, .. } in products.iter().flatten() {
                let end = first + weights.tiles();
                let part = range.start.clamp(first, end) - first..range.end.clamp(first, end) - first;
                let (bytes, panels) = (weights.matrix(expert(index)), shared.group(index));
                let job = Job { isa, weights, bytes, acts: shared, panels, target };
                // SAFETY: widths, blocks and the output's shape are checked above; tiles of a group are
                // handed out once, and so are their columns of its rows of an output that the product has to
                // itself. `isa` stands for the instructions.
                unsafe { job.multiply(part, scratch) };
                first = end;
            }
        }
    });
    acts.scratch = scratch;
}
