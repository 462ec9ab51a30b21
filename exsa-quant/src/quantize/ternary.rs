//! TQ1_0, TQ2_0, Q2_0 and Q1_0: values of few levels with one scale.

use super::fit::{Search, fit_scale};
use super::levels::{Integers, Levels};
use super::pack::{f16_of, inverse};
use crate::format::ternary::TQ1_RUNS;

/// Tries scales down to a third of the largest value, since most values are small unless the weights are
/// already ternary.
const SEARCH: Search = Search { from: 0.0, step: 0.1, count: 25 };

const TERNARY: Integers<-1, 1> = Integers;

pub(super) fn tq1_0(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 54]) {
    let (d, codes) = ternary(x, w);
    block[52..].copy_from_slice(&d);
    let mut rest = &codes[..];
    for (start, len, digits) in TQ1_RUNS {
        let (run, after) = rest.split_at(len * digits);
        rest = after;
        for (i, byte) in block[start..start + len].iter_mut().enumerate() {
            // Always five digits: a missing last digit is 0.
            let number = (0..5).fold(0u16, |number, digit| {
                3 * number + if digit < digits { u16::from(run[digit * len + i]) } else { 0 }
            });
            // The least fraction of 256 that is not below number / 243.
            *byte = (number * 256).div_ceil(243) as u8;
        }
    }
}

pub(super) fn tq2_0(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 66]) {
    let (d, codes) = ternary(x, w);
    super::pack::put_two_bits(&codes, &mut block[..64]);
    block[64..].copy_from_slice(&d);
}

fn ternary(x: &[f32; 256], w: &[f32; 256]) -> ([u8; 2], [u8; 256]) {
    let (bytes, d) = f16_of(fit_scale(x, w, TERNARY, SEARCH));
    let inverse = inverse(d);
    (bytes, x.map(|x| TERNARY.code(x * inverse)))
}

pub(super) fn q2_0(x: &[f32; 64], w: &[f32; 64], block: &mut [u8; 18]) {
    let levels = Integers::<-1, 2>;
    let (bytes, d) = f16_of(fit_scale(x, w, levels, Search { from: -0.5, step: 0.1, count: 25 }));
    block[..2].copy_from_slice(&bytes);
    block[2..].fill(0);
    let inverse = inverse(d);
    for (i, x) in x.iter().enumerate() {
        block[2 + i / 4] |= levels.code(x * inverse) << (i % 4 * 2);
    }
}

/// Signs, and the mean magnitude, which is the scale with the least squared error.
pub(super) fn q1_0(x: &[f32; 128], w: &[f32; 128], block: &mut [u8; 18]) {
    let sum: f32 = x.iter().zip(w).map(|(x, w)| w * x.abs()).sum();
    let mean = sum / w.iter().sum::<f32>();
    block[..2].copy_from_slice(&f16_of(if mean.is_finite() { mean } else { 0.0 }).0);
    block[2..].fill(0);
    for (i, x) in x.iter().enumerate() {
        block[2 + i / 8] |= u8::from(*x >= 0.0) << (i % 8);
    }
}
