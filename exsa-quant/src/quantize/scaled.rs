//! Super-blocks with a scale code per group: Q3_K, Q6_K, IQ4_XS.

use super::fit::{Search, Sums, fit_scale};
use super::levels::{Integers, Iq4Levels, Levels, round};
use super::pack::{f16_of, inverse, put_nibbles, put_two_bits, round_to_f16};

/// Rounds of alternating optimization: the codes for a given `d`, then `d` for the codes.
const ROUNDS: usize = 4;

/// Offsets of the largest scale code from the end of its range, tried in the first search.
const CODE_SEARCH: Search = Search { from: -2.0, step: 0.25, count: 16 };

/// A super-block of `GROUPS` groups: value = `d * codes[group] * level`.
struct Scaled<const GROUPS: usize> {
    d: f32,
    codes: [i32; GROUPS],
}

impl<const GROUPS: usize> Scaled<GROUPS> {
    /// The codes of all values.
    fn levels<L: Levels>(&self, x: &[f32; 256], levels: L) -> [u8; 256] {
        let mut out = [0; 256];
        let groups = out.chunks_exact_mut(256 / GROUPS).zip(x.chunks_exact(256 / GROUPS));
        for ((out, x), code) in groups.zip(self.codes) {
            let inverse = inverse(self.d * code as f32);
            for (out, x) in out.iter_mut().zip(x) {
                *out = levels.code(x * inverse);
            }
        }
        out
    }
}

/// Fits scale codes from `low` to `high` and their factor `d`, an f16.
fn fit<L: Levels, const GROUPS: usize>(
    x: &[f32; 256],
    w: &[f32; 256],
    levels: L,
    search: Search,
    (low, high): (i32, i32),
) -> Scaled<GROUPS> {
    let len = 256 / GROUPS;
    let group = |i: usize| (&x[i * len..][..len], &w[i * len..][..len]);
    let scales: [f32; GROUPS] = std::array::from_fn(|i| {
        let (x, w) = group(i);
        fit_scale(x, w, levels, search)
    });
    let curvature: [f32; GROUPS] = std::array::from_fn(|i| {
        let (x, w) = group(i);
        Sums::of(x, w, inverse(scales[i]), 0.0, levels).qq
    });
    let mut d = round_to_f16(first_factor(&scales, &curvature, low, high));
    let mut best = Scaled { d: 0.0, codes: [0; GROUPS] };
    // Error of all zeros.
    let mut least = 0.0;
    let mut codes: [i32; GROUPS] = scales.map(|scale| nearest_code(scale, d, low, high));
    for _ in 0..ROUNDS {
        let (mut error, mut qx, mut qq) = (0.0, 0.0, 0.0);
        for (i, code) in codes.iter_mut().enumerate() {
            let (x, w) = group(i);
            let center = *code;
            let mut nearby: Option<(f32, Sums)> = None;
            for candidate in (center - 1).max(low)..=(center + 1).min(high) {
                let scale = d * candidate as f32;
                let sums = Sums::of(x, w, inverse(scale), 0.0, levels);
                let error = sums.error(scale, 0.0);
                if nearby.is_none_or(|(least, _)| error < least) {
                    nearby = Some((error, sums));
                    *code = candidate;
                }
            }
            let Some((group_error, sums)) = nearby else { continue };
            let code = *code as f32;
            error += group_error;
            qx += code * sums.qx;
            qq += code * code * sums.qq;
        }
        // Sums that overflow f32 are not an improvement either.
        if error.is_nan() || error >= least {
            break;
        }
        (least, best) = (error, Scaled { d, codes });
        let next = qx / qq;
        if !next.is_finite() {
            break;
        }
        d = round_to_f16(next);
    }
    best
}

/// The factor for which the rounded codes are closest to the scales, with errors weighted by `curvature`.
fn first_factor<const GROUPS: usize>(
    scales: &[f32; GROUPS],
    curvature: &[f32; GROUPS],
    low: i32,
    high: i32,
) -> f32 {
    let peak = super::fit::peak(scales);
    let (mut best, mut least) = (peak / low as f32, f32::INFINITY);
    for end in [low as f32, high as f32] {
        for offset in CODE_SEARCH.offsets() {
            let d = peak / (end + offset * end.signum());
            let error = scales.iter().zip(curvature).map(|(scale, curvature)| {
                let difference = scale - d * nearest_code(*scale, d, low, high) as f32;
                curvature * difference * difference
            });
            let error: f32 = error.sum();
            if error < least {
                (best, least) = (d, error);
            }
        }
    }
    best
}

fn nearest_code(scale: f32, d: f32, low: i32, high: i32) -> i32 {
    round((scale * inverse(d)).max(low as f32).min(high as f32)) as i32
}

pub(super) fn q3(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 110]) {
    const SEARCH: Search = Search { from: -1.0, step: 0.1, count: 26 };
    let fit: Scaled<16> = fit(x, w, Integers::<-4, 3>, SEARCH, (-32, 31));
    let codes = fit.levels(x, Integers::<-4, 3>);
    let (third, rest) = block.split_at_mut(32);
    third.fill(0);
    for (i, code) in codes.iter().enumerate() {
        third[i % 32] |= (code >> 2) << (i / 32);
    }
    put_two_bits(&codes, &mut rest[..64]);
    let scales = &mut rest[64..76];
    scales.fill(0);
    for (group, code) in fit.codes.iter().enumerate() {
        let code = (code + 32) as u8;
        scales[group % 8] |= (code & 15) << (group / 8 * 4);
        scales[8 + group % 4] |= (code >> 4) << (group / 4 * 2);
    }
    rest[76..].copy_from_slice(&f16_of(fit.d).0);
}

pub(super) fn q6(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 210]) {
    const SEARCH: Search = Search { from: -1.0, step: 0.2, count: 11 };
    let fit: Scaled<16> = fit(x, w, Integers::<-32, 31>, SEARCH, (-128, 127));
    let codes = fit.levels(x, Integers::<-32, 31>);
    for (half, codes) in codes.chunks_exact(128).enumerate() {
        put_nibbles(codes, &mut block[64 * half..][..64]);
    }
    put_two_bits(&codes.map(|code| code >> 4), &mut block[128..192]);
    for (byte, code) in block[192..208].iter_mut().zip(fit.codes) {
        *byte = (code as i8).cast_unsigned();
    }
    block[208..].copy_from_slice(&f16_of(fit.d).0);
}

pub(super) fn iq4_xs(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 136]) {
    const SEARCH: Search = Search { from: -16.0, step: 1.0, count: 36 };
    let fit: Scaled<8> = fit(x, w, Iq4Levels, SEARCH, (-32, 31));
    block[..2].copy_from_slice(&f16_of(fit.d).0);
    let mut upper = 0u16;
    block[4..8].fill(0);
    for (group, code) in fit.codes.iter().enumerate() {
        let code = (code + 32) as u8;
        block[4 + group / 2] |= (code & 15) << (group % 2 * 4);
        upper |= u16::from(code >> 4) << (2 * group);
    }
    block[2..4].copy_from_slice(&upper.to_le_bytes());
    let codes = fit.levels(x, Iq4Levels);
    for (codes, bytes) in codes.chunks_exact(32).zip(block[8..].chunks_exact_mut(16)) {
        put_nibbles(codes, bytes);
    }
}
