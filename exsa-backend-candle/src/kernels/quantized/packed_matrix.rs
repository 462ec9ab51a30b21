//! Weights packed for products with quantized activations.

use super::activations::Activations;
use super::layout::{PackedType, TILE, pack_super_block};
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::memory::weight_memory::WeightMemory;
use exsa_core::gguf::GgmlType;
use std::ops::Range;

/// Bytes of a file that are packed between two reports of progress.
const PART_BYTES: usize = 16 << 20;

/// A matrix of `n` rows and `k` columns, packed for `y = x · Wᵀ`.
pub struct PackedMatrix {
    pub(super) kind: PackedType,
    pub(super) n: usize,
    pub(super) k: usize,
    data: WeightMemory,
}

impl PackedMatrix {
    /// Whether a type has a packed form.
    pub fn supports(dtype: GgmlType) -> bool {
        PackedType::of(dtype).is_some()
    }

    /// Bytes of a packed matrix of `n` rows and `k` columns.
    pub fn packed_bytes(kind: PackedType, n: usize, k: usize) -> usize {
        n.div_ceil(TILE) * k.div_ceil(kind.super_block()) * kind.super_block_bytes()
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
        let Some(kind) = PackedType::of(dtype) else { return Ok(None) };
        let (block_bytes, block) = kind.file_block();
        if n == 0 || k == 0 || !k.is_multiple_of(block) || bytes.len() != n * (k / block) * block_bytes {
            return Ok(None);
        }
        let (row_blocks, blocks_per_super_block) = (k / block, kind.super_block() / block);
        let super_blocks = k.div_ceil(kind.super_block());
        let tile_bytes = super_blocks * kind.super_block_bytes();
        let file_tile = TILE * row_blocks * block_bytes;
        let per_part = (PART_BYTES / file_tile).max(1);
        let mut data = memory.take(Self::packed_bytes(kind, n, k))?;
        for (i, part) in data.as_mut_slice().chunks_mut(per_part * tile_bytes).enumerate() {
            team.for_each_run(part, tile_bytes, |tile, out| {
                let tile = i * per_part + tile;
                for (super_block, out) in out.chunks_exact_mut(kind.super_block_bytes()).enumerate() {
                    let block_at = |row: usize, i: usize| {
                        let (row, at) = (tile * TILE + row, super_block * blocks_per_super_block + i);
                        (row < n && at < row_blocks)
                            .then(|| &bytes[(row * row_blocks + at) * block_bytes..][..block_bytes])
                    };
                    pack_super_block(kind, block_at, out);
                }
            });
            let start = i * per_part * file_tile;
            if let Err(stopped) = done(start..bytes.len().min(start + per_part * file_tile)) {
                return Ok(Some(Err(stopped)));
            }
        }
        Ok(Some(Ok(Self { kind, n, k, data: data.into() })))
    }

    /// The matrix of `n` rows of `k` values of type `dtype` whose packed bytes are `data`; `None` where the
    /// type has no packed form or the lengths do not fit. All bytes are weights of some value.
    pub fn from_packed(dtype: GgmlType, n: usize, k: usize, data: WeightMemory) -> Option<Self> {
        let kind = PackedType::of(dtype)?;
        let fits = n > 0 && k > 0 && k.is_multiple_of(kind.file_block().1);
        let fits = fits && data.as_slice().len() == Self::packed_bytes(kind, n, k);
        fits.then_some(Self { kind, n, k, data })
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
            && self.kind.super_block() == other.kind.super_block()
            && self.kind.offset() == other.kind.offset()
    }

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
