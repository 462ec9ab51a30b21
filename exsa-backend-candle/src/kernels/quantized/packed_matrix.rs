//! Weights packed for products with quantized activations.

use super::activations::Activations;
use super::layout::{PackedType, TILE, pack_super_block};
use crate::kernels::MatrixShape;
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::memory::weight_memory::WeightMemory;
use exsa_core::gguf::GgmlType;
use std::ops::Range;

/// Bytes of a file that are packed between two reports of progress.
const PART_BYTES: usize = 16 << 20;

/// A matrix of `n` rows and `k` columns, packed for `y = x · Wᵀ`, or a stack of several of that shape, one
/// after the other.
pub struct PackedMatrix {
    pub(super) kind: PackedType,
    count: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    data: WeightMemory,
}

impl PackedMatrix {
    /// Whether a type has a packed form.
    pub fn supports(dtype: GgmlType) -> bool {
        PackedType::of(dtype).is_some()
    }

    /// Bytes of packed matrices of that shape, as many as fit into `usize`.
    pub fn packed_bytes(kind: PackedType, shape: MatrixShape) -> usize {
        let super_blocks = shape.columns.div_ceil(kind.super_block());
        let tile_bytes = super_blocks.saturating_mul(kind.super_block_bytes());
        shape.tiles(TILE).saturating_mul(tile_bytes)
    }

    /// Packs `n` rows of `k` values of type `dtype`, as they lie in a GGUF, into `memory`. `None` where the
    /// type has no packed form or the lengths do not fit.
    pub fn pack(
        dtype: GgmlType,
        bytes: &[u8],
        n: usize,
        k: usize,
        team: &mut Team,
        memory: &mut Arena,
    ) -> std::io::Result<Option<Self>> {
        let done = |_| Ok::<_, std::convert::Infallible>(());
        let packed = Self::pack_by_parts(dtype, bytes, MatrixShape::one(n, k), team, memory, done);
        packed.map(|packed| match packed {
            Some(Ok(matrix)) => Some(matrix),
            Some(Err(never)) => match never {},
            None => None,
        })
    }

    /// The same of matrices of that shape; after each part of the bytes, in their order, calls `done`, which
    /// can end it.
    pub fn pack_by_parts<E>(
        dtype: GgmlType,
        bytes: &[u8],
        shape: MatrixShape,
        team: &mut Team,
        memory: &mut Arena,
        mut done: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> std::io::Result<Option<Result<Self, E>>> {
        let Some(kind) = PackedType::of(dtype) else { return Ok(None) };
        let (block_bytes, block) = kind.file_block();
        let MatrixShape { count, rows: n, columns: k } = shape;
        if shape.is_empty() || !k.is_multiple_of(block) {
            return Ok(None);
        }
        let (row_blocks, blocks_per_super_block) = (k / block, kind.super_block() / block);
        let row_bytes = row_blocks * block_bytes;
        if shape.all_rows().and_then(|rows| rows.checked_mul(row_bytes)) != Some(bytes.len()) {
            return Ok(None);
        }
        let super_blocks = k.div_ceil(kind.super_block());
        let tile_bytes = super_blocks * kind.super_block_bytes();
        let per_part = (PART_BYTES / (TILE * row_bytes)).max(1);
        let mut data = memory.take(Self::packed_bytes(kind, shape))?;
        for (i, part) in data.as_mut_slice().chunks_mut(per_part * tile_bytes).enumerate() {
            team.for_each_run(part, tile_bytes, |tile, out| {
                let rows = shape.tile_rows(i * per_part + tile, TILE);
                for (super_block, out) in out.chunks_exact_mut(kind.super_block_bytes()).enumerate() {
                    let block_at = |row: usize, i: usize| {
                        let at = super_block * blocks_per_super_block + i;
                        (row < rows.len() && at < row_blocks).then(|| {
                            &bytes[(rows.start + row) * row_bytes + at * block_bytes..][..block_bytes]
                        })
                    };
                    pack_super_block(kind, block_at, out);
                }
            });
            let row_of = |tile: usize| shape.tile_rows(tile, TILE).start;
            let part = row_of(i * per_part) * row_bytes..row_of((i + 1) * per_part) * row_bytes;
            if let Err(stopped) = done(part) {
                return Ok(Some(Err(stopped)));
            }
        }
        Ok(Some(Ok(Self { kind, count, n, k, data: data.into() })))
    }

    /// The matrices of that shape and of type `dtype` whose packed bytes are `data`; `None` where the type
    /// has no packed form or the lengths do not fit. All bytes are weights of some value.
    pub fn from_packed(dtype: GgmlType, shape: MatrixShape, data: WeightMemory) -> Option<Self> {
        let kind = PackedType::of(dtype)?;
        let MatrixShape { count, rows: n, columns: k } = shape;
        let fits = !shape.is_empty() && k.is_multiple_of(kind.file_block().1);
        let fits = fits && data.as_slice().len() == Self::packed_bytes(kind, shape);
        fits.then_some(Self { kind, count, n, k, data })
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// The packed bytes of matrix `index` of the stack.
    pub(super) fn matrix(&self, index: usize) -> &[u8] {
        let len = self.tiles() * self.tile_bytes();
        &self.data.as_slice()[index * len..][..len]
    }

    /// Matrices in the stack.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Type of the weights.
    pub fn kind(&self) -> PackedType {
        self.kind
    }

    /// Rows of a matrix: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of a matrix.
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
            && self.kind.super_block() == other.kind.super_block()
            && self.kind.offset() == other.kind.offset()
    }

    /// Tiles of a matrix.
    pub(super) fn tiles(&self) -> usize {
        self.n.div_ceil(TILE)
    }

    pub(super) fn super_blocks(&self) -> usize {
        self.k.div_ceil(self.kind.super_block())
    }

    pub(super) fn tile_bytes(&self) -> usize {
        self.super_blocks() * self.kind.super_block_bytes()
    }
}
