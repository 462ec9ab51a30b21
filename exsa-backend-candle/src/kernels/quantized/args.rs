//! Arguments of a kernel: one panel of activations and one tile of weights.

use super::activations::{Activations, PANEL_SIZES, Panel};
use super::layout::{PackedType, TILE};

/// Inputs and output of a kernel. All pointers are to the first element of the panel and tile.
///
/// # Contract
///
/// [`new`](Self::new) is unsafe so that its caller promises what the kernels rely on, for as long as they
/// run:
///
/// - `weights` points to `super_blocks` super-blocks of the type that the arguments were made for, each of
///   [`PackedType::super_block_bytes`];
/// - `q` points to as many values, in parts of 64 of each of `padded` rows; `scales`, and of the rest what
///   the type's [`activation_block`](PackedType::activation_block) has, hold the blocks of `padded` rows;
/// - `padded` is one of [`PANEL_SIZES`], and `rows` is 1 to `padded`;
/// - `out` points to `rows` rows, `out_stride` values apart, with `columns` values each, 1 to 16, which
///   nobody else uses.
pub(super) struct Args {
    pub weights: *const u8,
    /// Super-blocks of the tile.
    pub super_blocks: usize,
    /// `[k / 64][padded][64]`.
    pub q: *const i8,
    /// `[block][padded]`.
    pub scales: *const f32,
    /// Zero-point terms, `[block][padded]`, for blocks of 32.
    pub zero_points: *const i32,
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
    /// `panel` of `acts` times the `super_blocks` super-blocks of `kind` at `weights`, to the columns from
    /// `out` on, which is in the panel's first row.
    ///
    /// # Safety
    ///
    /// `weights` are whole super-blocks, `acts` was quantized for weights of `kind` and of their width and
    /// has `panel`, and `out` points to the panel's rows, `out_stride` values apart, with `columns` values
    /// each that nobody else uses.
    pub unsafe fn new(
        kind: PackedType,
        acts: &Activations,
        panel: Panel,
        (weights, super_blocks): (&[u8], usize),
        (out, out_stride, columns): (*mut f32, usize, usize),
    ) -> Self {
        let before = panel.before * (acts.k_padded / acts.block);
        debug_assert_eq!(weights.len(), super_blocks * kind.super_block_bytes());
        debug_assert_eq!(
            (acts.k_padded, acts.block),
            (super_blocks * kind.super_block(), kind.activation_block())
        );
        debug_assert!(acts.holds(panel), "a panel of the activations");
        debug_assert!(PANEL_SIZES.contains(&panel.padded) && (1..=panel.padded).contains(&panel.rows));
        debug_assert!((1..=TILE).contains(&columns) && (columns <= out_stride || panel.rows == 1));
        Self {
            weights: weights.as_ptr(),
            super_blocks,
            q: acts.values(panel.before * acts.k_padded),
            scales: acts.scales[before..].as_ptr(),
            zero_points: acts.zero_points.as_ptr().wrapping_add(before),
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
