//! A product for AMX tiles.

use crate::kernels::memory::team::Target;
use crate::kernels::quantized::activations::Activations;
use crate::kernels::quantized::layout::PackedType;

/// Operands and output of a product.
pub(in crate::kernels::quantized) struct Job<'a> {
    pub kind: PackedType,
    pub weights: &'a [u8],
    pub super_blocks: usize,
    pub acts: &'a Activations,
    pub out: &'a Target<f32>,
    /// Columns of `out`.
    pub n: usize,
}
