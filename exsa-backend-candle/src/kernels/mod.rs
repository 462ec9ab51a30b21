//! Products of quantized weights on the CPU, exact on the quantized operands.
//!
//! Weights are packed once, when a model is loaded, into tiles of 16 rows ([`layout`]); activations are quantized to
//! bytes once per row ([`activations`]); a [`team`] of threads shares out the tiles. Every output is computed by the
//! same operations in the same order whatever the number of rows and threads, so a row's result does not depend on
//! what else is in the batch.

pub mod activations;
pub mod attend;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod cache;
pub mod elementwise;
pub mod exp;
mod layout;
pub mod pages;
mod panel;
pub mod product;
pub mod rows;
#[cfg(test)]
mod scalar;
pub mod simd;
pub mod team;
#[cfg(test)]
mod tests;
mod vector;
pub mod widen;

use activations::Activations;
use exsa_core::gguf::GgmlType;
#[cfg(test)]
use layout::unpack_unit;
use layout::{Kind, TILE, pack_unit};
use pages::Pages;
use std::marker::PhantomData;
use std::ops::Range;
use team::{Target, Team};

/// Bytes of weights that stay in the second-level cache while all rows pass over them.
const CACHED_BYTES: usize = 256 << 10;

/// Multiplications below which other threads are left alone: sharing costs a few microseconds.
const SHARED_PRODUCTS_MIN: usize = 1 << 18;

/// Instructions that the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// Plain Rust: the reference that tests compare with.
    #[cfg(test)]
    Scalar,
}

impl Isa {
    /// The best that this processor has and that is faster than candle's own products; `None` if there is none.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if avx512::available() {
            return Some(Self::Avx512Vnni);
        }
        None
    }
}

/// A matrix of `n` rows and `k` columns, packed for `y = x · Wᵀ`.
pub struct PackedMatrix {
    kind: Kind,
    n: usize,
    k: usize,
    data: Pages,
}

impl PackedMatrix {
    /// Whether a type has a packed form.
    pub fn supports(dtype: GgmlType) -> bool {
        Kind::of(dtype).is_some()
    }

    /// Packs `n` rows of `k` values of type `dtype`, as they lie in a GGUF. `None` where the type has no packed form
    /// or the lengths do not fit.
    pub fn pack(
        dtype: GgmlType,
        bytes: &[u8],
        n: usize,
        k: usize,
        team: &mut Team,
    ) -> std::io::Result<Option<Self>> {
        let Some(kind) = Kind::of(dtype) else { return Ok(None) };
        let (block_bytes, block) = kind.file_block();
        if n == 0 || k == 0 || !k.is_multiple_of(block) || bytes.len() != n * (k / block) * block_bytes {
            return Ok(None);
        }
        let (row_blocks, per_unit) = (k / block, kind.unit() / block);
        let units = k.div_ceil(kind.unit());
        let (tiles, tile_bytes) = (n.div_ceil(TILE), units * kind.unit_bytes());
        let mut data = Pages::zeroed(tiles * tile_bytes)?;
        team.for_each_run(data.as_mut_slice(), tile_bytes, |tile, out| {
            for (unit, out) in out.chunks_exact_mut(kind.unit_bytes()).enumerate() {
                let block_at = |row: usize, i: usize| {
                    let (row, at) = (tile * TILE + row, unit * per_unit + i);
                    (row < n && at < row_blocks)
                        .then(|| &bytes[(row * row_blocks + at) * block_bytes..][..block_bytes])
                };
                pack_unit(kind, block_at, out);
            }
        });
        Ok(Some(Self { kind, n, k, data }))
    }

    /// Quantizes `x`, `[m, k]` row-major, for this matrix.
    pub fn quantize(&self, x: &[f32], team: &mut Team, acts: &mut Activations) {
        acts.quantize(x, self.k, self.kind, team);
    }

    /// Whether activations quantized for `other` serve this matrix too.
    pub fn shares_activations(&self, other: &Self) -> bool {
        self.k == other.k
            && self.kind.unit() == other.kind.unit()
            && self.kind.offset() == other.kind.offset()
    }

    /// `out = x · Wᵀ`: `out` is `[m, n]` row-major, for the `m` rows that `acts` was quantized from.
    #[cfg(test)]
    pub fn multiply(&self, isa: Isa, acts: &Activations, team: &mut Team, out: &mut [f32]) {
        multiply_all(isa, &[Some(Product::new(self, out))], acts, team);
    }

    fn tiles(&self) -> usize {
        self.n.div_ceil(TILE)
    }

    fn tile_bytes(&self) -> usize {
        self.k.div_ceil(self.kind.unit()) * self.kind.unit_bytes()
    }

    /// Tiles that are multiplied with all rows while they are in the cache. One panel reads each tile once.
    fn group(&self, acts: &Activations) -> usize {
        if acts.panels.len() == 1 { 1 } else { (CACHED_BYTES / self.tile_bytes()).max(1) }
    }

    /// Multiplies the tiles of `range` into their columns of the matrix at `target`, `[m, n]`.
    ///
    /// # Safety
    ///
    /// `acts` was quantized for this matrix, and nobody else writes these columns.
    unsafe fn multiply_tiles(&self, isa: Isa, acts: &Activations, range: Range<usize>, target: &Target<f32>) {
        let (tile_bytes, group) = (self.tile_bytes(), self.group(acts));
        for start in range.clone().step_by(group) {
            for panel in &acts.panels {
                for tile in start..range.end.min(start + group) {
                    let weights = &self.data.as_slice()[tile * tile_bytes..][..tile_bytes];
                    let column = tile * TILE;
                    let columns = TILE.min(self.n - column);
                    match isa {
                        // SAFETY: an `Isa` of this kind was detected; lengths and columns by the caller's promise.
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512Vnni => unsafe {
                            avx512::tile(
                                self.kind,
                                weights,
                                acts,
                                *panel,
                                target.at(0),
                                self.n,
                                column,
                                columns,
                            );
                        },
                        #[cfg(test)]
                        Isa::Scalar => {
                            let mut sums = [0.0; TILE * activations::PANEL];
                            scalar::tile(self.kind, weights, acts, *panel, &mut sums[..panel.rows * TILE]);
                            for row in 0..panel.rows {
                                for i in 0..columns {
                                    let at = (panel.start + row) * self.n + column + i;
                                    // SAFETY: in the matrix, and nobody else writes these columns.
                                    unsafe { *target.at(at) = sums[row * TILE + i] };
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// For tests: dequantizes row `i` into `out`, of `k` values.
    #[cfg(test)]
    fn row(&self, i: usize, out: &mut [f32]) {
        let unit = self.kind.unit();
        let tile_bytes = self.k.div_ceil(unit) * self.kind.unit_bytes();
        let tile = &self.data.as_slice()[i / TILE * tile_bytes..][..tile_bytes];
        let mut values = [0.0; 256];
        for (bytes, out) in tile.chunks_exact(self.kind.unit_bytes()).zip(out.chunks_mut(unit)) {
            unpack_unit(self.kind, bytes, i % TILE, &mut values[..unit]);
            out.copy_from_slice(&values[..out.len()]);
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
pub fn multiply_all(isa: Isa, products: &[Option<Product<'_>>], acts: &Activations, team: &mut Team) {
    let m: usize = acts.panels.iter().map(|panel| panel.rows).sum();
    let (mut tiles, mut work, mut group) = (0, 0, 1);
    for Product { weights, len, .. } in products.iter().flatten() {
        assert_eq!(
            acts.k_padded,
            weights.k.next_multiple_of(weights.kind.unit()),
            "activations of another width"
        );
        assert_eq!(acts.block, weights.kind.activation_block(), "activations quantized for another kind");
        assert_eq!(*len, m * weights.n, "the output has another shape");
        tiles += weights.tiles();
        work += m * weights.n * weights.k;
        group = group.max(weights.group(acts));
    }
    // Small pieces at little cost: a slower thread must not keep the others waiting at the end.
    let grain = (tiles / (team.threads() * 8)).clamp(1, 16).next_multiple_of(group);
    let grain = if work < SHARED_PRODUCTS_MIN { tiles } else { grain };
    team.for_each(tiles, grain, |range| {
        let mut first = 0;
        for Product { weights, target, .. } in products.iter().flatten() {
            let end = first + weights.tiles();
            let part = range.start.clamp(first, end) - first..range.end.clamp(first, end) - first;
            // SAFETY: shapes are checked above; tiles are handed out once, and so are their columns of an output
            // that the product has to itself.
            unsafe { weights.multiply_tiles(isa, acts, part, target) };
            first = end;
        }
    });
}
