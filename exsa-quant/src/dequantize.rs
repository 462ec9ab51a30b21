//! Dequantization: blocks to f32, by type.

use crate::QuantError;
use crate::format::{binary, float, fp4, iq1, iq2, iq3, iq4, k, legacy, ternary};
use exsa_core::gguf::GgmlType;

/// Dequantizes `bytes`, whole blocks of `dtype`, into `out`, one f32 per weight.
///
/// Each value is bit-identical to that of ggml's reference code, on every processor: products and sums are
/// separate f32 operations in the same order.
///
/// # Errors
///
/// [`QuantError::NotWeights`] for integer types, [`QuantError::PartialBlock`] and [`QuantError::Bytes`] if
/// the lengths do not match. `out` is unchanged then.
pub fn dequantize(dtype: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check_lengths(dtype, bytes.len(), out.len())?;
    match dtype {
        GgmlType::F32 => blocks(bytes, out, float::f32),
        GgmlType::F16 => blocks(bytes, out, float::f16),
        GgmlType::BF16 => blocks(bytes, out, float::bf16),
        GgmlType::F64 => blocks(bytes, out, float::f64),
        GgmlType::Q4_0 => blocks(bytes, out, legacy::q4_0),
        GgmlType::Q4_1 => blocks(bytes, out, legacy::q4_1),
        GgmlType::Q5_0 => blocks(bytes, out, legacy::q5_0),
        GgmlType::Q5_1 => blocks(bytes, out, legacy::q5_1),
        GgmlType::Q8_0 => blocks(bytes, out, legacy::q8_0),
        GgmlType::Q8_1 => blocks(bytes, out, legacy::q8_1),
        GgmlType::Q2K => blocks(bytes, out, k::q2),
        GgmlType::Q3K => blocks(bytes, out, k::q3),
        GgmlType::Q4K => blocks(bytes, out, k::q4),
        GgmlType::Q5K => blocks(bytes, out, k::q5),
        GgmlType::Q6K => blocks(bytes, out, k::q6),
        GgmlType::Q8K => blocks(bytes, out, k::q8),
        GgmlType::Iq4Nl => blocks(bytes, out, iq4::nl),
        GgmlType::Iq4Xs => blocks(bytes, out, iq4::xs),
        GgmlType::Iq3Xxs => blocks(bytes, out, iq3::xxs),
        GgmlType::Iq3S => blocks(bytes, out, iq3::s),
        GgmlType::Iq2Xxs => blocks(bytes, out, iq2::xxs),
        GgmlType::Iq2Xs => blocks(bytes, out, iq2::xs),
        GgmlType::Iq2S => blocks(bytes, out, iq2::s),
        GgmlType::Iq1S => blocks(bytes, out, iq1::s),
        GgmlType::Iq1M => blocks(bytes, out, iq1::m),
        GgmlType::Tq1_0 => blocks(bytes, out, ternary::tq1_0),
        GgmlType::Tq2_0 => blocks(bytes, out, ternary::tq2_0),
        GgmlType::Mxfp4 => blocks(bytes, out, fp4::mxfp4),
        GgmlType::Nvfp4 => blocks(bytes, out, fp4::nvfp4),
        GgmlType::Q1_0 => blocks(bytes, out, binary::q1_0),
        GgmlType::Q2_0 => blocks(bytes, out, binary::q2_0),
        // The integer types, and types that a later version of the format adds.
        _ => return Err(QuantError::NotWeights(dtype)),
    }
    Ok(())
}

/// Checks that `bytes` bytes hold `values` values in whole blocks of `dtype`.
fn check_lengths(dtype: GgmlType, bytes: usize, values: usize) -> Result<(), QuantError> {
    let len = dtype.block_len();
    if !(values as u64).is_multiple_of(len) {
        return Err(QuantError::PartialBlock { dtype, values });
    }
    let needed = (values as u64 / len) as u128 * dtype.block_bytes() as u128;
    if needed != bytes as u128 {
        return Err(QuantError::Bytes { dtype, values, needed, bytes });
    }
    Ok(())
}

/// Applies `block` to each block of `B` bytes and its `N` values.
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let (bytes, _) = bytes.as_chunks::<B>();
    let (out, _) = out.as_chunks_mut::<N>();
    bytes.iter().zip(out).for_each(|(bytes, out)| block(bytes, out));
}
