//! Quantization: f32 to blocks, by type.

mod fit;
mod fp4;
mod legacy;
mod levels;
mod lined;
mod pack;
mod scaled;
mod ternary;

use crate::QuantError;
use exsa_core::gguf::GgmlType;

/// Minimum importance of a column, relative to the mean, so that a column that the calibration never used
/// still keeps its values.
const IMPORTANCE_FLOOR: f32 = 1e-4;

/// Quantizes rows of `columns` values to `dtype` and appends their blocks to `out`.
///
/// Blocks are chosen to have a small weighted squared error. The weight of a value `x` is its column's
/// importance times `sqrt(m + x * x)`, with the mean square `m` of its row: large values have more influence
/// than their squared error alone (the weights of llama.cpp's quantizer; for Q1_0, only the importance is
/// used). `importance` has the mean square of each column's activations, as llama.cpp's importance matrices
/// do; without it, all columns have equal importance. F32, F16 and BF16 are rounded to nearest, whatever the
/// importance.
///
/// The same input yields the same bytes on every processor.
///
/// # Errors
///
/// [`QuantError::NotQuantizable`] for unsupported target types, [`QuantError::PartialBlock`] and
/// [`QuantError::PartialRow`] if the lengths do not match, [`QuantError::Importance`] and
/// [`QuantError::NotFinite`] for invalid numbers. `out` is then unchanged.
pub fn quantize(
    dtype: GgmlType,
    values: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<(), QuantError> {
    if !can_quantize(dtype) {
        return Err(QuantError::NotQuantizable(dtype));
    }
    if columns == 0 || !values.len().is_multiple_of(columns) {
        return Err(QuantError::PartialRow { values: values.len(), columns });
    }
    if !(columns as u64).is_multiple_of(dtype.block_len()) {
        return Err(QuantError::PartialBlock { dtype, values: columns });
    }
    if let Some(importance) = importance {
        check_importance(importance, columns)?;
    }
    let Some(quantize_row) = row_quantizer(dtype) else {
        put_floats(dtype, values, out);
        return Ok(());
    };
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        return Err(QuantError::NotFinite { row: at / columns, column: at % columns, value: values[at] });
    }
    // The error of a sign does not depend on the magnitude: only the mean is fitted, and weighting would bias
    // it towards large values.
    let by_magnitude = dtype != GgmlType::Q1_0;
    let floor = importance
        .map_or(0.0, |importance| IMPORTANCE_FLOOR * importance.iter().sum::<f32>() / columns as f32);
    let mut weights = vec![0.0; columns];
    for row in values.chunks_exact(columns) {
        weigh(row, by_magnitude, importance, floor, &mut weights);
        quantize_row(row, &weights, out);
    }
    Ok(())
}

/// Appends values as F32, F16 or BF16.
fn put_floats(dtype: GgmlType, values: &[f32], out: &mut Vec<u8>) {
    match dtype {
        GgmlType::F16 => out.extend(values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes())),
        GgmlType::BF16 => out.extend(values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())),
        _ => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
    }
}

/// Whether [`quantize()`] can make blocks of `dtype`.
pub fn can_quantize(dtype: GgmlType) -> bool {
    matches!(dtype, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16) || row_quantizer(dtype).is_some()
}

fn check_importance(importance: &[f32], columns: usize) -> Result<(), QuantError> {
    if importance.len() != columns {
        let problem = format!("it has {} numbers, but there are {columns} columns", importance.len());
        return Err(QuantError::Importance(problem));
    }
    match importance.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
        Some(at) => {
            let problem =
                format!("column {at} has {}; finite numbers of at least 0 are allowed", importance[at]);
            Err(QuantError::Importance(problem))
        }
        None => Ok(()),
    }
}

/// The weights of a row's values.
fn weigh(row: &[f32], by_magnitude: bool, importance: Option<&[f32]>, floor: f32, weights: &mut [f32]) {
    let mean_square = row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32;
    for (weight, x) in weights.iter_mut().zip(row) {
        *weight = if by_magnitude { (mean_square + x * x).sqrt() } else { 1.0 };
    }
    let Some(importance) = importance else { return };
    for (weight, importance) in weights.iter_mut().zip(importance) {
        *weight *= importance + floor;
    }
}

/// Appends the blocks of a row, given its values and their weights.
type RowQuantizer = fn(&[f32], &[f32], &mut Vec<u8>);

/// The quantizer of a type with blocks; `None` for other types.
fn row_quantizer(dtype: GgmlType) -> Option<RowQuantizer> {
    Some(match dtype {
        GgmlType::Q4_0 => |x, w, out| blocks(x, w, out, legacy::q4_0),
        GgmlType::Q4_1 => |x, w, out| blocks(x, w, out, legacy::q4_1),
        GgmlType::Q5_0 => |x, w, out| blocks(x, w, out, legacy::q5_0),
        GgmlType::Q5_1 => |x, w, out| blocks(x, w, out, legacy::q5_1),
        GgmlType::Q8_0 => |x, w, out| blocks(x, w, out, legacy::q8_0),
        GgmlType::Iq4Nl => |x, w, out| blocks(x, w, out, legacy::iq4_nl),
        GgmlType::Q2K => |x, w, out| blocks(x, w, out, lined::q2),
        GgmlType::Q3K => |x, w, out| blocks(x, w, out, scaled::q3),
        GgmlType::Q4K => |x, w, out| blocks(x, w, out, lined::q4),
        GgmlType::Q5K => |x, w, out| blocks(x, w, out, lined::q5),
        GgmlType::Q6K => |x, w, out| blocks(x, w, out, scaled::q6),
        GgmlType::Iq4Xs => |x, w, out| blocks(x, w, out, scaled::iq4_xs),
        GgmlType::Mxfp4 => |x, w, out| blocks(x, w, out, fp4::mxfp4),
        GgmlType::Nvfp4 => |x, w, out| blocks(x, w, out, fp4::nvfp4),
        GgmlType::Tq1_0 => |x, w, out| blocks(x, w, out, ternary::tq1_0),
        GgmlType::Tq2_0 => |x, w, out| blocks(x, w, out, ternary::tq2_0),
        GgmlType::Q1_0 => |x, w, out| blocks(x, w, out, ternary::q1_0),
        GgmlType::Q2_0 => |x, w, out| blocks(x, w, out, ternary::q2_0),
        _ => return None,
    })
}

/// Appends a block of `B` bytes for each `N` values.
fn blocks<const N: usize, const B: usize>(
    x: &[f32],
    w: &[f32],
    out: &mut Vec<u8>,
    quantize: impl Fn(&[f32; N], &[f32; N], &mut [u8; B]),
) {
    let (x, _) = x.as_chunks::<N>();
    let (w, _) = w.as_chunks::<N>();
    for (x, w) in x.iter().zip(w) {
        let mut block = [0; B];
        quantize(x, w, &mut block);
        out.extend(block);
    }
}
