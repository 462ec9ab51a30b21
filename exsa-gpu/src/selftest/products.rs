//! Checks of embeddings and products, by type of weights.

use super::rig::{Rig, word};
use crate::device::{Device, DeviceError};
use crate::kernel::WeightType;
use crate::kernel::launch::{At, Kernels};
use crate::kernel::params::{EmbedParams, ProductParams};

/// Relative to the sum of the sizes of a product's terms.
const LIMIT: f64 = 2e-6;

/// A matrix on host and device.
struct Matrix<D: Device> {
    buffer: D::Buffer,
    /// Its values, as `exsa-quant` reads the blocks.
    values: Vec<f32>,
    rows: usize,
    cols: usize,
}

pub(super) fn check<D: Device>(rig: &mut Rig<'_, D>, weight: WeightType) -> Result<(), DeviceError> {
    let kernels = rig.kernels(&[weight])?;
    embed(rig, &kernels, weight)?;
    for (at_once, m) in [(1, 1), (4, 3), (8, 8), (8, 11)] {
        product(rig, &kernels, weight, at_once, m)?;
    }
    let many = rig.number(17..=40);
    product(rig, &kernels, weight, 0, many)
}

fn matrix<D: Device>(
    rig: &mut Rig<'_, D>,
    weight: WeightType,
    rows: usize,
) -> Result<Matrix<D>, DeviceError> {
    let multiple = usize::try_from(weight.columns_multiple()).unwrap_or(256);
    let blocks = rig.number(1..=if multiple < 256 { 300 / multiple } else { 2 });
    let cols = multiple * blocks;
    let values = rig.weights(rows * cols);
    let failed = |error: exsa_quant::QuantError| DeviceError::Driver(error.to_string());
    let mut bytes = Vec::new();
    exsa_quant::quantize(weight.dtype(), &values, cols, None, &mut bytes).map_err(failed)?;
    let mut values = vec![0.0; rows * cols];
    exsa_quant::dequantize(weight.dtype(), &bytes, &mut values).map_err(failed)?;
    Ok(Matrix { buffer: rig.bytes(&bytes)?, values, rows, cols })
}

fn embed<D: Device>(
    rig: &mut Rig<'_, D>,
    kernels: &Kernels<D>,
    weight: WeightType,
) -> Result<(), DeviceError> {
    let rows = rig.number(3..=9);
    let matrix = matrix(rig, weight, rows)?;
    let n = rig.number(1..=4);
    let tokens: Vec<u32> = (0..n).map(|_| word(rig.number(0..=rows - 1))).collect();
    let (ids, y) = (rig.upload_words(&tokens)?, rig.output(n * matrix.cols)?);
    let params = EmbedParams { cols: word(matrix.cols), factor: 1.5 };
    let operands = [At(&matrix.buffer, 0), At(&ids, 0), At(&y, 0)];
    kernels.embed(&mut rig.stream, weight, operands, n, params)?;
    let got = rig.read(&y, n * matrix.cols)?;
    let expected: Vec<(f64, f64)> = tokens
        .iter()
        .flat_map(|token| &matrix.values[*token as usize * matrix.cols..][..matrix.cols])
        // A difference of two terms may be small beside them.
        .map(|value| (1.5 * f64::from(*value), f64::from(value.abs()).max(1.0)))
        .collect();
    rig.compare(format!("embed_{} {n} x {}", weight.name(), matrix.cols), &got, expected, LIMIT);
    Ok(())
}

fn product<D: Device>(
    rig: &mut Rig<'_, D>,
    kernels: &Kernels<D>,
    weight: WeightType,
    at_once: u32,
    m: usize,
) -> Result<(), DeviceError> {
    let rows = rig.number(1..=90);
    let matrix = matrix(rig, weight, rows)?;
    let Matrix { rows, cols, .. } = matrix;
    let (x_stride, y_stride) = (cols + 4 * rig.number(0..=3), rows + rig.number(0..=5));
    let x = rig.floats(m * x_stride);
    let (xs, y) = (rig.upload(&x)?, rig.output(m * y_stride)?);
    let params = ProductParams {
        rows: word(rows),
        cols: word(cols),
        m: word(m),
        x_stride: word(x_stride),
        y_stride: word(y_stride),
    };
    let operands = [At(&matrix.buffer, 0), At(&xs, 0), At(&y, 0)];
    kernels.product_by(&mut rig.stream, weight, operands, params, at_once)?;
    let all = rig.read(&y, m * y_stride)?;
    let got: Vec<f32> = all.chunks(y_stride).flat_map(|y| y[..rows].iter().copied()).collect();
    let mut expected = Vec::new();
    for x in x.chunks(x_stride) {
        for row in matrix.values.chunks(cols) {
            let terms = || row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            expected.push((terms().sum(), terms().map(f64::abs).sum::<f64>()));
        }
    }
    let name = if at_once == 0 { "many".to_owned() } else { at_once.to_string() };
    let name = format!("product_{name}_{} {rows} x {cols}, {m} rows", weight.name());
    rig.compare(name, &got, expected, LIMIT);
    Ok(())
}
