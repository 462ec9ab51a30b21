//! Products of quantized weights on the CPU, exact on the quantized operands.
//!
//! Weights are packed once, when a model is loaded, into tiles of 16 rows ([`layout`]); activations are quantized to
//! bytes once per row ([`activations`]); a [`team`] of threads shares out the tiles. Every output is computed by the
//! same operations in the same order whatever the number of rows and threads, so a row's result does not depend on
//! what else is in the batch.

pub mod activations;
mod ahead;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_blocks;
#[cfg(target_arch = "x86_64")]
mod amx_planes;
mod args;
pub mod attend;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod cache;
pub mod elementwise;
pub mod exp;
mod items;
mod lanes;
mod layout;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod pages;
mod panel;
pub mod product;
#[cfg(target_arch = "x86_64")]
mod quantize512;
pub mod roofline;
pub mod rows;
mod scalar;
pub mod simd;
mod softmax;
pub mod team;
#[cfg(test)]
mod tests;
mod vector;
pub mod widen;

use activations::{Activations, Panel};
#[cfg(target_arch = "x86_64")]
use amx::Scratch;
use args::Args;
use exsa_core::gguf::GgmlType;
#[cfg(test)]
use layout::unpack_unit;
use layout::{Kind, TILE, pack_unit};
use pages::{Arena, Pages};
use std::marker::PhantomData;
use std::ops::Range;
use team::{Target, Team};

/// Bytes of weights that stay in the second-level cache while all rows pass over them.
const CACHED_BYTES: usize = 256 << 10;

/// Bytes of a file that are packed between two reports of progress.
const PART_BYTES: usize = 16 << 20;

/// Multiplications below which other threads are left alone: sharing costs a few microseconds.
const SHARED_PRODUCTS_MIN: usize = 1 << 18;

/// What a thread works in beside registers, kept between products.
#[cfg(not(target_arch = "x86_64"))]
type Scratch = ();

/// Instructions that the kernels use. Results are the same with all, to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust.
    Scalar,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// The same with AMX tiles for many rows.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with DotProd.
    #[cfg(target_arch = "aarch64")]
    NeonDotProd,
}

impl Isa {
    /// Those that this processor has, the best last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let others = {
            let (avx2, vnni) = avx2::available();
            [
                (avx2, Self::Avx2),
                (vnni, Self::AvxVnni),
                (avx512::available(), Self::Avx512Vnni),
                (amx::available(), Self::Amx),
            ]
        };
        #[cfg(target_arch = "aarch64")]
        let others = [(true, Self::Neon), (neon::has_dotprod(), Self::NeonDotProd)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let others: [(bool, Self); 0] = [];
        [Self::Scalar].into_iter().chain(others.into_iter().filter(|(has, _)| *has).map(|(_, isa)| isa))
    }

    /// The best that this processor has.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// Multiplies one panel with one tile.
    ///
    /// # Safety
    ///
    /// The processor has these instructions, and `args` are valid for `kind`.
    unsafe fn multiply(self, kind: Kind, args: &Args) {
        // SAFETY: passed on.
        unsafe {
            match self {
                Self::Scalar => lanes::tile::<scalar::Scalar>(kind, args),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => avx2::multiply(kind, args),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => avx2::multiply_vnni(kind, args),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni | Self::Amx => avx512::multiply(kind, args),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => neon::multiply(kind, args),
                #[cfg(target_arch = "aarch64")]
                Self::NeonDotProd => neon::multiply_dotprod(kind, args),
            }
        }
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

    /// Packs `n` rows of `k` values of type `dtype`, as they lie in a GGUF, into `memory`. `None` where the type has no packed
    /// form or the lengths do not fit.
    pub fn pack(
        dtype: GgmlType,
        bytes: &[u8],
        n: usize,
        k: usize,
        team: &mut Team,
        memory: &mut Arena,
    ) -> std::io::Result<Option<Self>> {
        let done = |_| Ok::<_, std::convert::Infallible>(());
        let packed = Self::pack_by_parts(dtype, bytes, n, k, team, memory, done);
        packed.map(|packed| match packed {
            Some(Ok(matrix)) => Some(matrix),
            Some(Err(never)) => match never {},
            None => None,
        })
    }

    /// The same; after each part of the bytes, in their order, calls `done`, which can end it.
    pub fn pack_by_parts<E>(
        dtype: GgmlType,
        bytes: &[u8],
        n: usize,
        k: usize,
        team: &mut Team,
        memory: &mut Arena,
        mut done: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> std::io::Result<Option<Result<Self, E>>> {
        let Some(kind) = Kind::of(dtype) else { return Ok(None) };
        let (block_bytes, block) = kind.file_block();
        if n == 0 || k == 0 || !k.is_multiple_of(block) || bytes.len() != n * (k / block) * block_bytes {
            return Ok(None);
        }
        let (row_blocks, per_unit) = (k / block, kind.unit() / block);
        let units = k.div_ceil(kind.unit());
        let (tiles, tile_bytes) = (n.div_ceil(TILE), units * kind.unit_bytes());
        let file_tile = TILE * row_blocks * block_bytes;
        let per_part = (PART_BYTES / file_tile).max(1);
        let mut data = memory.take(tiles * tile_bytes)?;
        for (i, part) in data.as_mut_slice().chunks_mut(per_part * tile_bytes).enumerate() {
            team.for_each_run(part, tile_bytes, |tile, out| {
                let tile = i * per_part + tile;
                for (unit, out) in out.chunks_exact_mut(kind.unit_bytes()).enumerate() {
                    let block_at = |row: usize, i: usize| {
                        let (row, at) = (tile * TILE + row, unit * per_unit + i);
                        (row < n && at < row_blocks)
                            .then(|| &bytes[(row * row_blocks + at) * block_bytes..][..block_bytes])
                    };
                    pack_unit(kind, block_at, out);
                }
            });
            let start = i * per_part * file_tile;
            if let Err(stopped) = done(start..bytes.len().min(start + per_part * file_tile)) {
                return Ok(Some(Err(stopped)));
            }
        }
        Ok(Some(Ok(Self { kind, n, k, data })))
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// Rows of the matrix: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of the matrix.
    pub fn k(&self) -> usize {
        self.k
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
    pub fn multiply(&self, isa: Isa, acts: &mut Activations, team: &mut Team, out: &mut [f32]) {
        multiply_all(isa, &[Some(Product::new(self, out))], acts, team);
    }

    fn tiles(&self) -> usize {
        self.n.div_ceil(TILE)
    }

    fn units(&self) -> usize {
        self.k.div_ceil(self.kind.unit())
    }

    fn tile_bytes(&self) -> usize {
        self.units() * self.kind.unit_bytes()
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
        let enough = isa == Isa::Amx && whole * TILE >= amx::rows_min(self.kind);
        &acts.panels[..if enough { whole } else { 0 }]
    }

    /// Multiplies the tiles of `range` into their columns of the matrix at `target`, `[m, n]`.
    ///
    /// # Safety
    ///
    /// The processor has the instructions; `acts` was quantized for this matrix; and nobody else writes these columns.
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
            let weights = self.data.as_slice();
            let job =
                amx::Job { kind: self.kind, weights, units: self.units(), acts, out: target, n: self.n };
            // SAFETY: passed on.
            unsafe { amx::multiply(&job, whole, range.clone(), scratch) };
            &panels[whole.len()..]
        };
        // SAFETY: passed on.
        unsafe { self.multiply_panels(isa, acts, panels, range, target) }
    }

    /// The same for some of the panels.
    ///
    /// # Safety
    ///
    /// As of `multiply_tiles`.
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
                    let weights = &self.data.as_slice()[tile * tile_bytes..][..tile_bytes];
                    let column = tile * TILE;
                    let columns = TILE.min(self.n - column);
                    let out = target.at(panel.start * self.n + column);
                    let args = Args::new(acts, *panel, (weights, self.units()), (out, self.n, columns));
                    // SAFETY: by the caller's promise.
                    unsafe { isa.multiply(self.kind, &args) };
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
pub fn multiply_all(isa: Isa, products: &[Option<Product<'_>>], acts: &mut Activations, team: &mut Team) {
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
        group = group.max(weights.group(isa, acts));
    }
    // Small pieces at little cost: a slower thread must not keep the others waiting at the end.
    let grain = (tiles / (team.threads() * 8)).clamp(1, 16).next_multiple_of(group);
    let grain = if work < SHARED_PRODUCTS_MIN { tiles } else { grain };
    let mut scratch = std::mem::take(&mut acts.scratch);
    // For every thread before any works: a helper may come to its first product at any time.
    scratch.resize_with(team.threads().max(scratch.len()), Scratch::default);
    let shared = &*acts;
    team.for_each_with(&mut scratch, tiles, grain, |scratch, range| {
        let mut first = 0;
        for Product { weights, target, .. } in products.iter().flatten() {
            let end = first + weights.tiles();
            let part = range.start.clamp(first, end) - first..range.end.clamp(first, end) - first;
            // SAFETY: shapes are checked above; tiles are handed out once, and so are their columns of an output
            // that the product has to itself.
            unsafe { weights.multiply_tiles(isa, shared, part, target, scratch) };
            first = end;
        }
    });
    acts.scratch = scratch;
}
