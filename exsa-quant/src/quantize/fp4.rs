//! MXFP4 and NVFP4: 4-bit floating point with a scale of few bits, chosen by the resulting error.

use super::fit::peak;
use super::pack::inverse;
use crate::codebook::MXFP4_VALUES;
use crate::format::fp4::{e8m0_halved, ue4m3_halved};

pub(super) fn mxfp4(x: &[f32; 32], w: &[f32; 32], block: &mut [u8; 17]) {
    // Tries the exponent that maps the largest value to just below the highest level, 6 = 1.5 * 2^2, and its
    // neighbours. The logarithm of 0 is below all exponents.
    let exponent = peak(x).abs().log2().floor().max(-127.0) as i32 - 2 + 127;
    let candidates = (exponent - 1..=exponent + 1).map(|e| e.clamp(0, 254) as u8);
    let e = least_error(x, w, candidates, e8m0_halved);
    block[0] = e;
    put(x, e8m0_halved(e), &mut block[1..]);
}

pub(super) fn nvfp4(x: &[f32; 64], w: &[f32; 64], block: &mut [u8; 36]) {
    let (scales, quants) = block.split_at_mut(4);
    let groups = x.chunks_exact(16).zip(w.chunks_exact(16));
    for (((x, w), scale), quants) in groups.zip(scales).zip(quants.chunks_exact_mut(8)) {
        // Codes are ordered like their values.
        let wanted = peak(x).abs() / 12.0;
        let nearest = (1..0x7f).take_while(|code| ue4m3_halved(*code) <= wanted).last().unwrap_or(0);
        let candidates = nearest.saturating_sub(4)..=(nearest + 3).min(0x7e);
        *scale = least_error(x, w, candidates, ue4m3_halved);
        put(x, ue4m3_halved(*scale), quants);
    }
}

/// The candidate whose scale results in the smallest weighted squared error.
fn least_error(x: &[f32], w: &[f32], candidates: impl Iterator<Item = u8>, scale: fn(u8) -> f32) -> u8 {
    let error = |code: u8| {
        let d = scale(code);
        let inverse = inverse(d);
        let errors = x.iter().zip(w).map(|(x, w)| {
            let difference = x - d * f32::from(MXFP4_VALUES[usize::from(nearest(x * inverse))]);
            w * difference * difference
        });
        errors.sum::<f32>()
    };
    let least = candidates.map(|code| (code, error(code))).min_by(|a, b| a.1.total_cmp(&b.1));
    least.map_or(0, |(code, _)| code)
}

fn put(x: &[f32], d: f32, bytes: &mut [u8]) {
    let inverse = inverse(d);
    let half = bytes.len();
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = nearest(x[i] * inverse) | nearest(x[i + half] * inverse) << 4;
    }
}

/// Code of the nearest of [`MXFP4_VALUES`]; positive 0 for values that round to 0.
fn nearest(x: f32) -> u8 {
    let magnitude = x.abs();
    let mut code = 0;
    for i in 0..7 {
        let middle = f32::from(MXFP4_VALUES[i] + MXFP4_VALUES[i + 1]) * 0.5;
        code += u8::from(magnitude > middle);
    }
    if x < 0.0 && code > 0 { code | 8 } else { code }
}
