//! Checks of the passes over rows.

use super::rig::{Rig, word};
use crate::device::{Device, DeviceError};
use crate::kernel::launch::At;
use crate::kernel::params::{
    AddParams, GATE_GELU, GATE_SILU, GateParams, GatherParams, LogitParams, NORM_ADD, NORM_BIAS, NORM_LAYER,
    NormParams,
};

const LIMIT: f64 = 3e-6;

pub(super) fn check<D: Device>(rig: &mut Rig<'_, D>) -> Result<(), DeviceError> {
    for flags in [0, NORM_ADD, NORM_LAYER, NORM_ADD | NORM_LAYER | NORM_BIAS] {
        norm(rig, flags)?;
    }
    norm_in_place(rig)?;
    add(rig)?;
    for (activation, gated) in [(GATE_SILU, 1), (GATE_GELU, 1), (GATE_GELU, 0)] {
        gate(rig, activation, gated)?;
    }
    logits(rig, 0.0)?;
    logits(rig, 30.0)?;
    gather(rig)?;
    arg_max(rig)
}

/// Values of a row after a norm, with the size of their terms.
fn normed(x: &[f64], weight: &[f32], bias: Option<&[f32]>, layer: bool, epsilon: f64) -> Vec<(f64, f64)> {
    let n = x.len() as f64;
    let mean = if layer { x.iter().sum::<f64>() / n } else { 0.0 };
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + epsilon).sqrt();
    let value = |(i, x): (usize, &f64)| {
        let bias = bias.map_or(0.0, |bias| f64::from(bias[i]));
        let (value, weight) = ((x - mean) * scale * f64::from(weight[i]), f64::from(weight[i]));
        (value + bias, (x.abs() + mean.abs()) * scale * weight.abs() + bias.abs())
    };
    x.iter().enumerate().map(value).collect()
}

fn norm<D: Device>(rig: &mut Rig<'_, D>, flags: u32) -> Result<(), DeviceError> {
    let (rows, cols) = (rig.number(1..=5), rig.number(1..=700));
    let stride = cols + rig.number(0..=9);
    let (x, t) = (rig.floats(rows * stride), rig.floats(rows * cols));
    let (weight, bias) = (rig.floats(cols), rig.floats(cols));
    let kernels = rig.kernels(&[])?;
    let buffers = [rig.guarded(&x)?, rig.upload(&t)?, rig.upload(&weight)?, rig.upload(&bias)?];
    let y = rig.output(rows * stride)?;
    let params = NormParams { cols: word(cols), stride: word(stride), flags, epsilon: 1e-5, factor: 0.7 };
    let [x_at, t_at, weight_at, bias_at] = buffers.each_ref().map(|buffer| At(buffer, 0));
    kernels.norm(&mut rig.stream, [x_at, t_at, weight_at, bias_at, At(&y, 0)], rows, params)?;
    let summed = |row: usize, i: usize| {
        let added = if flags & NORM_ADD != 0 { 0.7f32 * t[row * cols + i] } else { 0.0 };
        f64::from(x[row * stride + i]) + f64::from(added)
    };
    let (got_x, got_y) = (rig.read(&buffers[0], rows * stride)?, rig.read(&y, rows * stride)?);
    let mut sums = Vec::new();
    let (mut got, mut expected) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let values: Vec<f64> = (0..cols).map(|i| summed(row, i)).collect();
        let bias = (flags & NORM_BIAS != 0).then_some(bias.as_slice());
        expected.extend(normed(&values, &weight, bias, flags & NORM_LAYER != 0, 1e-5));
        got.extend_from_slice(&got_y[row * stride..row * stride + cols]);
        sums.extend(values.iter().map(|value| (*value, 1.0)));
    }
    rig.compare(format!("norm {rows} x {cols}, flags {flags}"), &got, expected, LIMIT);
    let rows_of_x: Vec<f32> = got_x.chunks(stride).flat_map(|row| row[..cols].iter().copied()).collect();
    rig.compare(format!("norm {rows} x {cols}, flags {flags}: sums"), &rows_of_x, sums, LIMIT);
    Ok(())
}

/// The output is the input.
fn norm_in_place<D: Device>(rig: &mut Rig<'_, D>) -> Result<(), DeviceError> {
    let (rows, cols) = (rig.number(1..=4), rig.number(200..=600));
    let (x, weight) = (rig.floats(rows * cols), rig.floats(cols));
    let kernels = rig.kernels(&[])?;
    let (buffer, weights) = (rig.guarded(&x)?, rig.upload(&weight)?);
    let params = NormParams { cols: word(cols), stride: word(cols), flags: 0, epsilon: 1e-6, factor: 0.0 };
    let (at, w) = (At(&buffer, 0), At(&weights, 0));
    kernels.norm(&mut rig.stream, [at, w, w, w, at], rows, params)?;
    let got = rig.read(&buffer, rows * cols)?;
    let expected = x.chunks(cols).flat_map(|row| {
        let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        normed(&row, &weight, None, false, 1e-6)
    });
    let expected: Vec<_> = expected.collect();
    rig.compare(format!("norm {rows} x {cols} in place"), &got, expected, LIMIT);
    Ok(())
}

fn add<D: Device>(rig: &mut Rig<'_, D>) -> Result<(), DeviceError> {
    let (rows, cols) = (rig.number(1..=5), rig.number(1..=600));
    let stride = cols + rig.number(0..=5);
    let (x, t, bias) = (rig.floats(rows * stride), rig.floats(rows * cols), rig.floats(cols));
    let kernels = rig.kernels(&[])?;
    let (buffer, added, biases) = (rig.guarded(&x)?, rig.upload(&t)?, rig.upload(&bias)?);
    let params = AddParams { cols: word(cols), stride: word(stride), factor: -0.3 };
    kernels.add_rows(&mut rig.stream, [At(&buffer, 0), At(&added, 0)], rows, params)?;
    kernels.add_bias(&mut rig.stream, [At(&buffer, 0), At(&biases, 0)], rows, params)?;
    let got = rig.read(&buffer, rows * stride)?;
    let expected: Vec<(f64, f64)> = (0..rows * stride)
        .map(|at| {
            let (row, i, value) = (at / stride, at % stride, f64::from(x[at]));
            match i < cols {
                true => (value - 0.3 * f64::from(t[row * cols + i]) + f64::from(bias[i]), 1.0),
                false => (value, 1.0),
            }
        })
        .collect();
    rig.compare(format!("add_rows and add_bias {rows} x {cols}"), &got, expected, LIMIT);
    Ok(())
}

fn gate<D: Device>(rig: &mut Rig<'_, D>, activation: u32, gated: u32) -> Result<(), DeviceError> {
    let (rows, cols) = (rig.number(1..=4), rig.number(1..=600));
    let width = cols * (1 + gated as usize);
    // Some far out, so that the exponential is at its ends.
    let x: Vec<f32> = rig.floats(rows * width).iter().map(|x| x * x * x * 120.0).collect();
    let kernels = rig.kernels(&[])?;
    let (from, to) = (rig.upload(&x)?, rig.output(rows * cols)?);
    let params = GateParams { cols: word(cols), activation, gated };
    kernels.gate(&mut rig.stream, [At(&from, 0), At(&to, 0)], rows, params)?;
    let got = rig.read(&to, rows * cols)?;
    let mut expected = Vec::new();
    for row in x.chunks(width) {
        for (i, v) in row[..cols].iter().enumerate() {
            let v = f64::from(*v);
            let active = if activation == GATE_GELU {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3));
                0.5 * v * (1.0 + inner.tanh())
            } else {
                v / (1.0 + (-v).exp())
            };
            let other = if gated == 1 { f64::from(row[cols + i]) } else { 1.0 };
            // Near the end of the exponential the absolute error counts.
            expected.push((active * other, (active.abs() + 1e-3) * other.abs() + 1e-6));
        }
    }
    let name = format!("gate {rows} x {cols}, activation {activation}, gated {gated}");
    rig.compare(name, &got, expected, 2e-5);
    Ok(())
}

fn logits<D: Device>(rig: &mut Rig<'_, D>, softcap: f32) -> Result<(), DeviceError> {
    let (rows, cols) = (rig.number(1..=3), rig.number(1..=600));
    let x: Vec<f32> = rig.floats(rows * cols).iter().map(|x| x * 400.0).collect();
    let kernels = rig.kernels(&[])?;
    let buffer = rig.guarded(&x)?;
    let params = LogitParams { cols: word(cols), factor: 0.5, softcap };
    kernels.logits(&mut rig.stream, At(&buffer, 0), rows, params)?;
    let got = rig.read(&buffer, rows * cols)?;
    let expected: Vec<(f64, f64)> = x
        .iter()
        .map(|x| {
            let (value, cap) = (0.5 * f64::from(*x), f64::from(softcap));
            if softcap > 0.0 { (cap * (value / cap).tanh(), cap) } else { (value, value.abs()) }
        })
        .collect();
    rig.compare(format!("logits {rows} x {cols}, cap {softcap}"), &got, expected, LIMIT);
    Ok(())
}

fn gather<D: Device>(rig: &mut Rig<'_, D>) -> Result<(), DeviceError> {
    let (from, n, cols) = (rig.number(1..=9), rig.number(1..=5), rig.number(1..=600));
    let x = rig.floats(from * cols);
    let rows: Vec<u32> = (0..n).map(|_| word(rig.number(0..=from - 1))).collect();
    let kernels = rig.kernels(&[])?;
    let (source, indices, to) = (rig.upload(&x)?, rig.upload_words(&rows)?, rig.output(n * cols)?);
    let operands = [At(&source, 0), At(&indices, 0), At(&to, 0)];
    kernels.gather(&mut rig.stream, operands, n, GatherParams { cols: word(cols) })?;
    let got = rig.read(&to, n * cols)?;
    let expected: Vec<(f64, f64)> = rows
        .iter()
        .flat_map(|row| &x[*row as usize * cols..][..cols])
        .map(|x| (f64::from(*x), 1.0))
        .collect();
    rig.compare(format!("gather_rows {n} of {from} x {cols}"), &got, expected, 0.0);
    Ok(())
}

fn arg_max<D: Device>(rig: &mut Rig<'_, D>) -> Result<(), DeviceError> {
    let (rows, cols) = (4, rig.number(300..=1000));
    let mut x: Vec<f32> = rig.floats(rows * cols).iter().map(|x| (x * 50.0).round()).collect();
    // A row of equals, one of values that are no numbers, and one with such a value.
    x[..cols].fill(-3.0);
    x[cols..2 * cols].fill(f32::NAN);
    x[2 * cols] = f32::NAN;
    let kernels = rig.kernels(&[])?;
    let (from, to) = (rig.upload(&x)?, rig.upload_words(&vec![0; rows])?);
    kernels.arg_max(&mut rig.stream, [At(&from, 0), At(&to, 0)], rows, GatherParams { cols: word(cols) })?;
    let got: Vec<f32> = rig.read_words(&to, rows)?.iter().map(|at| *at as f32).collect();
    let expected: Vec<(f64, f64)> = x
        .chunks(cols)
        .map(|row| {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let at = row.iter().position(|x| *x == best).unwrap_or(cols);
            (at as f64, 1.0)
        })
        .collect();
    rig.compare(format!("arg_max {rows} x {cols}"), &got, expected, 0.0);
    Ok(())
}
