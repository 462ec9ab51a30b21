//! Shape of matrices of weights in one tensor.

use std::ops::Range;

/// Rows and columns of a matrix, and how many matrices of that shape lie in one tensor, one after the other:
/// those of the experts of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatrixShape {
    /// Number of matrices.
    pub count: usize,
    /// Rows of each: columns of a product.
    pub rows: usize,
    /// Columns of each.
    pub columns: usize,
}

impl MatrixShape {
    /// Of one matrix.
    pub fn one(rows: usize, columns: usize) -> Self {
        Self { count: 1, rows, columns }
    }

    /// Whether there are no weights.
    pub fn is_empty(&self) -> bool {
        self.count == 0 || self.rows == 0 || self.columns == 0
    }

    /// Rows of all matrices; `None` if they are too many.
    pub fn all_rows(&self) -> Option<usize> {
        self.count.checked_mul(self.rows)
    }

    /// Tiles of `height` rows of all matrices, each of which begins a tile.
    pub fn tiles(&self, height: usize) -> usize {
        self.rows.div_ceil(height).saturating_mul(self.count)
    }

    /// Rows of tile `tile`, numbered through all matrices; none, behind the last row, for tiles that are not
    /// there.
    pub fn tile_rows(&self, tile: usize, height: usize) -> Range<usize> {
        let tiles = self.rows.div_ceil(height);
        let (matrix, tile) = (tile / tiles, tile % tiles);
        if matrix >= self.count {
            return self.count * self.rows..self.count * self.rows;
        }
        let first = matrix * self.rows;
        first + tile * height..first + self.rows.min((tile + 1) * height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row is in one tile, and no tile has rows of two matrices.
    #[test]
    fn tiles_hold_rows_of_one_matrix() {
        for (count, rows) in [(1, 5), (3, 4), (2, 9), (4, 1)] {
            let shape = MatrixShape { count, rows, columns: 1 };
            let mut next = 0;
            for tile in 0..shape.tiles(4) {
                let range = shape.tile_rows(tile, 4);
                assert_eq!(range.start, next);
                assert!(!range.is_empty() && range.start / rows == (range.end - 1) / rows);
                next = range.end;
            }
            assert_eq!(Some(next), shape.all_rows());
            assert!(shape.tile_rows(shape.tiles(4), 4).is_empty());
        }
    }
}
