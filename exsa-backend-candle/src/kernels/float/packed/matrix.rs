//! Float weights in tiles of 16 rows.

use super::element::{Element, FloatType};
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
/// zeros for rows past `n`.
pub(crate) struct FloatMatrix {
    pub(super) kind: FloatType,
    pub(super) n: usize,
    pub(super) k: usize,
    data: WeightMemory,
}

impl FloatMatrix {
    /// Bytes of a packed matrix of `n` rows and `k` columns.
    pub fn packed_bytes(kind: FloatType, n: usize, k: usize) -> usize {
        n.div_ceil(TILE).saturating_mul(TILE * kind.bytes()).saturating_mul(k)
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
        let packed = Self::pack_by_parts(dtype, bytes, n, k, team, memory, done)?;
        Ok(packed.map(|packed| match packed {
            Ok(matrix) => matrix,
            Err(never) => match never {},
        }))
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
        let Some(kind) = FloatType::of(dtype) else { return Ok(None) };
        let expected = n.checked_mul(k).and_then(|values| values.checked_mul(kind.bytes()));
        if n == 0 || k == 0 || expected != Some(bytes.len()) {
            return Ok(None);
        }
        let tile_bytes = TILE * k * kind.bytes();
        let per_part = (PART_BYTES / tile_bytes).max(1);
        let mut data = memory.take(Self::packed_bytes(kind, n, k))?;
        for (i, part) in data.as_mut_slice().chunks_mut(per_part * tile_bytes).enumerate() {
            let first = i * per_part * tile_bytes;
            team.for_each_run(part, tile_bytes, |tile, out| {
                let start = first + tile * tile_bytes;
                let rows = &bytes[start..bytes.len().min(start + tile_bytes)];
                match kind.bytes() {
                    4 => pack_tile::<4>(rows, k, out),
                    _ => pack_tile::<2>(rows, k, out),
                }
            });
            let end = bytes.len().min(first + per_part * tile_bytes);
            if let Err(stopped) = done(first..end) {
                return Ok(Some(Err(stopped)));
            }
        }
        Ok(Some(Ok(Self { kind, n, k, data: data.into() })))
    }

    /// The matrix of `n` rows of `k` values of type `dtype` whose packed bytes are `data`; `None` where the
    /// type is no float or the lengths do not fit.
    pub fn from_packed(dtype: GgmlType, n: usize, k: usize, data: WeightMemory) -> Option<Self> {
        let kind = FloatType::of(dtype)?;
        let fits = n > 0 && k > 0 && data.as_slice().len() == Self::packed_bytes(kind, n, k);
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

    /// Tiles of the matrix.
    pub(super) fn tiles(&self) -> usize {
        self.n.div_ceil(TILE)
    }

    /// The weights of tile `tile` from column `k` on: `[k][16]`. The type is the matrix's own.
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
