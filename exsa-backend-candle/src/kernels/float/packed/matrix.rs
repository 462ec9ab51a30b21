//! Float weights in tiles of 16 rows.

use super::element::{Element, FloatType};
use crate::kernels::MatrixShape;
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::memory::weight_memory::WeightMemory;
use exsa_core::gguf::GgmlType;
use std::ops::Range;

/// Rows of weights in a tile.
pub(super) const TILE: usize = 16;

/// Bytes of a file that are packed between two reports of progress.
const PART_BYTES: usize = 16 << 20;

/// Values of `k` that are reordered at a time: a cache line or two of each row.
const TRANSPOSED: usize = 32;

/// A matrix of `n` rows and `k` columns for `y = x · Wᵀ`: `[n / 16][k][16]` in the type of the file, with
/// zeros for rows past `n`; or a stack of several of that shape, one after the other.
pub(crate) struct FloatMatrix {
    pub(super) kind: FloatType,
    count: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    data: WeightMemory,
}

impl FloatMatrix {
    /// Bytes of packed matrices of that shape, as many as fit into `usize`.
    pub fn packed_bytes(kind: FloatType, shape: MatrixShape) -> usize {
        shape.tiles(TILE).saturating_mul(TILE * kind.bytes()).saturating_mul(shape.columns)
    }

    /// Packs `n` rows of `k` values of type `dtype`, as they lie in a GGUF, into `memory`. `None` where the
    /// type is no float or the lengths do not fit.
    pub fn pack(
        dtype: GgmlType,
        bytes: &[u8],
        n: usize,
        k: usize,
        team: &mut Team,
        memory: &mut Arena,
    ) -> std::io::Result<Option<Self>> {
        let done = |_| Ok::<_, std::convert::Infallible>(());
        let packed = Self::pack_by_parts(dtype, bytes, MatrixShape::one(n, k), team, memory, done)?;
        Ok(packed.map(|packed| match packed {
            Ok(matrix) => matrix,
            Err(never) => match never {},
        }))
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
        let Some(kind) = FloatType::of(dtype) else { return Ok(None) };
        let MatrixShape { count, rows: n, columns: k } = shape;
        let row_bytes = k.saturating_mul(kind.bytes());
        let expected = shape.all_rows().and_then(|rows| rows.checked_mul(row_bytes));
        if shape.is_empty() || expected != Some(bytes.len()) {
            return Ok(None);
        }
        let tile_bytes = TILE * row_bytes;
        let per_part = (PART_BYTES / tile_bytes).max(1);
        let mut data = memory.take(Self::packed_bytes(kind, shape))?;
        for (i, part) in data.as_mut_slice().chunks_mut(per_part * tile_bytes).enumerate() {
            let first = i * per_part;
            team.for_each_run(part, tile_bytes, |tile, out| {
                let rows = shape.tile_rows(first + tile, TILE);
                let rows = &bytes[rows.start * row_bytes..rows.end * row_bytes];
                match kind.bytes() {
                    4 => pack_tile::<4>(rows, k, out),
                    _ => pack_tile::<2>(rows, k, out),
                }
            });
            let row_of = |tile: usize| shape.tile_rows(tile, TILE).start;
            if let Err(stopped) = done(row_of(first) * row_bytes..row_of(first + per_part) * row_bytes) {
                return Ok(Some(Err(stopped)));
            }
        }
        Ok(Some(Ok(Self { kind, count, n, k, data: data.into() })))
    }

    /// The matrices of that shape and of type `dtype` whose packed bytes are `data`; `None` where the type is
    /// no float or the lengths do not fit.
    pub fn from_packed(dtype: GgmlType, shape: MatrixShape, data: WeightMemory) -> Option<Self> {
        let kind = FloatType::of(dtype)?;
        let MatrixShape { count, rows: n, columns: k } = shape;
        let fits = !shape.is_empty() && data.as_slice().len() == Self::packed_bytes(kind, shape);
        fits.then_some(Self { kind, count, n, k, data })
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// Matrices in the stack.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Type of the weights.
    pub fn kind(&self) -> FloatType {
        self.kind
    }

    /// Bytes of a matrix of the stack.
    pub(super) fn matrix_bytes(&self) -> usize {
        self.tiles() * TILE * self.k * self.kind.bytes()
    }

    /// Rows of a matrix: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of a matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Tiles of a matrix.
    pub(super) fn tiles(&self) -> usize {
        self.n.div_ceil(TILE)
    }

    /// The weights of tile `tile`, numbered through all matrices, from column `k` on: `[k][16]`. The type is
    /// the matrix's own.
    pub(super) fn at<E: Element>(&self, tile: usize, k: usize) -> *const E {
        debug_assert_eq!(size_of::<E>(), self.kind.bytes());
        self.bytes().as_ptr().cast::<E>().wrapping_add((tile * self.k + k) * TILE)
    }
}

/// Reorders up to 16 `rows` of `k` values of `SIZE` bytes to `[k][16]`; the rest of `out` stays zero.
fn pack_tile<const SIZE: usize>(rows: &[u8], k: usize, out: &mut [u8]) {
    let (rows, _) = rows.as_chunks::<SIZE>();
    let (out, _) = out.as_chunks_mut::<SIZE>();
    for (part, out) in out.chunks_mut(TRANSPOSED * TILE).enumerate() {
        for (r, row) in rows.chunks_exact(k).enumerate() {
            for (value, out) in row[part * TRANSPOSED..].iter().zip(out[r..].iter_mut().step_by(TILE)) {
                *out = *value;
            }
        }
    }
}
