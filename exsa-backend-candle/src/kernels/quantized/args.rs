//! What a kernel is given: one panel of activations and one tile of weights.

use super::activations::{Activations, Panel};

/// Where a kernel reads and writes. All pointers are to the first element of the panel and tile.
pub(super) struct Args {
    pub weights: *const u8,
    /// Units of the tile.
    pub units: usize,
    /// `[k / 64][padded][64]`.
    pub q: *const i8,
    /// `[block][padded]`.
    pub scales: *const f32,
    /// `[block][padded]`, for blocks of 32.
    pub corrections: *const i32,
    /// `[block][padded][8]`, for blocks of 256.
    pub sums32: *const i16,
    /// `[block][padded][16]`, for blocks of 256.
    pub sums16: *const i16,
    pub out: *mut f32,
    /// Values from one row of `out` to the next.
    pub out_stride: usize,
    /// Rows that are written; the rest is padding.
    pub rows: usize,
    /// Rows of the panel with padding.
    pub padded: usize,
    /// Columns that are written: 1 to 16.
    pub columns: usize,
}

impl Args {
    /// `panel` of `acts` times the `units` units at `weights`, to the columns from `out` on, which is in the panel's first
    /// row.
    pub fn new(
        acts: &Activations,
        panel: Panel,
        (weights, units): (&[u8], usize),
        (out, out_stride, columns): (*mut f32, usize, usize),
    ) -> Self {
        let before = panel.before * (acts.k_padded / acts.block);
        Self {
            weights: weights.as_ptr(),
            units,
            q: acts.values(panel.before * acts.k_padded),
            scales: acts.scales[before..].as_ptr(),
            corrections: acts.corrections.as_ptr().wrapping_add(before),
            sums32: acts.sums32.as_ptr().wrapping_add(before * 8),
            sums16: acts.sums16.as_ptr().wrapping_add(before * 16),
            out,
            out_stride,
            rows: panel.rows,
            padded: panel.padded,
            columns,
        }
    }
}
