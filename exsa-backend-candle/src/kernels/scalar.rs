//! The reference: every product of packed weights, in plain Rust.

use super::activations::{Activations, Panel};
use super::layout::{Kind, TILE, unpack_unit};

/// Multiplies a panel with one tile of `units` units: `out` is `[panel.rows][TILE]`.
///
/// The weights are dequantized and the products summed in f64, so that the result is the exact product of the
/// quantized operands up to one rounding.
pub fn tile(kind: Kind, weights: &[u8], acts: &Activations, panel: Panel, out: &mut [f32]) {
    let (unit, rows) = (kind.unit(), panel.padded);
    let blocks = acts.k_padded / acts.block;
    let mut values = vec![0.0f32; unit];
    let mut sums = vec![0.0f64; panel.rows * TILE];
    for (u, bytes) in weights.chunks_exact(kind.unit_bytes()).enumerate() {
        for column in 0..TILE {
            unpack_unit(kind, bytes, column, &mut values);
            for row in 0..panel.rows {
                let mut sum = 0.0;
                for (i, value) in values.iter().enumerate() {
                    let k = u * unit + i;
                    let q = acts.q[panel.before * acts.k_padded + (k / 32 * rows + row) * 32 + k % 32];
                    let scale = acts.scales[panel.before * blocks + k / acts.block * rows + row];
                    sum += f64::from(*value) * f64::from(q) * f64::from(scale);
                }
                sums[row * TILE + column] += sum;
            }
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum as f32;
    }
}
