//! Super-blocks with a scale code and a minimum code per group: Q2_K, Q4_K, Q5_K.

use super::fit::{Search, Sums, fit_line};
use super::levels::{Integers, Levels, round};
use super::pack::{f16_of, inverse, put_two_bits, round_to_f16};

/// Rounds of alternating optimization: the codes for given `d` and `dmin`, then these for the codes.
const ROUNDS: usize = 4;

/// Offsets of the largest code from the end of its range, tried in the first search.
const CODE_SEARCH: Search = Search { from: -1.5, step: 0.5, count: 6 };

const LINE_SEARCH: Search = Search { from: -1.0, step: 0.15, count: 15 };

/// A super-block of `GROUPS` groups: value = `d * scale code * level - dmin * minimum code`.
struct Lined<const GROUPS: usize> {
    d: f32,
    dmin: f32,
    /// Scale and minimum code of each group.
    codes: [(i32, i32); GROUPS],
}

impl<const GROUPS: usize> Lined<GROUPS> {
    /// The codes of all values.
    fn levels<L: Levels>(&self, x: &[f32; 256], levels: L) -> [u8; 256] {
        let mut out = [0; 256];
        let groups = out.chunks_exact_mut(256 / GROUPS).zip(x.chunks_exact(256 / GROUPS));
        for ((out, x), (scale, min)) in groups.zip(self.codes) {
            let (inverse, min) = (inverse(self.d * scale as f32), -self.dmin * min as f32);
            for (out, x) in out.iter_mut().zip(x) {
                *out = levels.code((x - min) * inverse);
            }
        }
        out
    }
}

/// A group's own best line, and the sums from which the cost of a deviation is computed.
#[derive(Clone, Copy)]
struct Group {
    scale: f32,
    min: f32,
    sums: Sums,
}

/// Fits codes from 0 to `code_max` and their factors `d` and `dmin`, f16 both.
fn fit<L: Levels, const GROUPS: usize>(
    x: &[f32; 256],
    w: &[f32; 256],
    levels: L,
    code_max: i32,
) -> Lined<GROUPS> {
    let len = 256 / GROUPS;
    let slices = |i: usize| (&x[i * len..][..len], &w[i * len..][..len]);
    let groups: [Group; GROUPS] = std::array::from_fn(|i| {
        let (x, w) = slices(i);
        let (scale, min) = fit_line(x, w, levels, LINE_SEARCH, 0.0);
        Group { scale, min, sums: Sums::of(x, w, inverse(scale), min, levels) }
    });
    let (d, dmin) = first_factors(&groups, code_max);
    let (mut d, mut dmin) = (round_to_f16(d), round_to_f16(dmin));
    let mut codes = groups.map(|group| group.codes(d, dmin, code_max));
    let mut best = Lined { d: 0.0, dmin: 0.0, codes: [(0, 0); GROUPS] };
    // Error of all zeros.
    let mut least = 0.0;
    for _ in 0..ROUNDS {
        let mut error = 0.0;
        let mut factors = Factors::default();
        for (i, codes) in codes.iter_mut().enumerate() {
            let (x, w) = slices(i);
            let center = *codes;
            let mut least = f32::INFINITY;
            let mut sums = Sums::default();
            for scale in (center.0 - 1).max(0)..=(center.0 + 1).min(code_max) {
                for min in (center.1 - 1).max(0)..=(center.1 + 1).min(code_max) {
                    let line = (d * scale as f32, -dmin * min as f32);
                    let nearby = Sums::of(x, w, inverse(line.0), line.1, levels);
                    let error = nearby.error(line.0, line.1);
                    if error < least {
                        (least, sums, *codes) = (error, nearby, (scale, min));
                    }
                }
            }
            error += least;
            factors.add(&sums, *codes);
        }
        // Sums that overflow f32 are not an improvement either.
        if error.is_nan() || error >= least {
            break;
        }
        (least, best) = (error, Lined { d, dmin, codes });
        let Some(next) = factors.solve() else { break };
        (d, dmin) = (round_to_f16(next.0), round_to_f16(next.1));
    }
    best
}

impl Group {
    /// The codes closest to the group's own line.
    fn codes(&self, d: f32, dmin: f32, code_max: i32) -> (i32, i32) {
        let scale = nearest_code(self.scale, d, code_max);
        (scale, nearest_code(-self.min_for(d * scale as f32), dmin, code_max))
    }

    /// The best minimum for another scale, with fixed levels.
    fn min_for(&self, scale: f32) -> f32 {
        let shift = (self.scale - scale) * self.sums.q / self.sums.w;
        if shift.is_finite() { self.min + shift } else { self.min }
    }

    /// The cost of codes that differ from the group's own line, with fixed levels.
    fn cost(&self, d: f32, dmin: f32, code_max: i32) -> f32 {
        let (scale, min) = self.codes(d, dmin, code_max);
        let (ds, dm) = (d * scale as f32 - self.scale, -dmin * min as f32 - self.min);
        ds * ds * self.sums.qq + 2.0 * ds * dm * self.sums.q + dm * dm * self.sums.w
    }
}

/// The factors for which the rounded codes are closest to the groups' own lines.
fn first_factors(groups: &[Group], code_max: i32) -> (f32, f32) {
    let peaks = groups
        .iter()
        .fold((0.0f32, 0.0f32), |peaks, group| (peaks.0.max(group.scale), peaks.1.max(-group.min)));
    let top = code_max as f32;
    let (mut best, mut least) = ((peaks.0 / top, peaks.1 / top), f32::INFINITY);
    for scale_offset in CODE_SEARCH.offsets() {
        for min_offset in CODE_SEARCH.offsets() {
            let (d, dmin) = (peaks.0 / (top + scale_offset), peaks.1 / (top + min_offset));
            let cost: f32 = groups.iter().map(|group| group.cost(d, dmin, code_max)).sum();
            if cost < least {
                (best, least) = ((d, dmin), cost);
            }
        }
    }
    best
}

fn nearest_code(x: f32, factor: f32, code_max: i32) -> i32 {
    round((x * inverse(factor)).max(0.0).min(code_max as f32)) as i32
}

/// Normal equations of the two factors over a super-block, with fixed codes and levels.
#[derive(Default)]
struct Factors {
    scale: f32,
    cross: f32,
    min: f32,
    scale_x: f32,
    min_x: f32,
}

impl Factors {
    fn add(&mut self, sums: &Sums, (scale, min): (i32, i32)) {
        let (scale, min) = (scale as f32, min as f32);
        self.scale += scale * scale * sums.qq;
        self.cross -= scale * min * sums.q;
        self.min += min * min * sums.w;
        self.scale_x += scale * sums.qx;
        self.min_x -= min * sums.x;
    }

    fn solve(&self) -> Option<(f32, f32)> {
        let determinant = self.scale * self.min - self.cross * self.cross;
        let (d, dmin) = if determinant > 0.0 {
            let d = (self.scale_x * self.min - self.min_x * self.cross) / determinant;
            (d, (self.min_x * self.scale - self.scale_x * self.cross) / determinant)
        } else {
            (self.scale_x / self.scale, 0.0)
        };
        (d.is_finite() && dmin.is_finite()).then_some((d, dmin))
    }
}

pub(super) fn q2(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 84]) {
    let fit: Lined<16> = fit(x, w, Integers::<0, 3>, 15);
    for (byte, (scale, min)) in block.iter_mut().zip(fit.codes) {
        *byte = (scale | min << 4) as u8;
    }
    put_two_bits(&fit.levels(x, Integers::<0, 3>), &mut block[16..80]);
    block[80..82].copy_from_slice(&f16_of(fit.d).0);
    block[82..].copy_from_slice(&f16_of(fit.dmin).0);
}

pub(super) fn q4(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 144]) {
    let fit: Lined<8> = fit(x, w, Integers::<0, 15>, 63);
    put_factors(&fit, &mut block[..16]);
    put_low_halves(&fit.levels(x, Integers::<0, 15>), &mut block[16..]);
}

pub(super) fn q5(x: &[f32; 256], w: &[f32; 256], block: &mut [u8; 176]) {
    let fit: Lined<8> = fit(x, w, Integers::<0, 31>, 63);
    let codes = fit.levels(x, Integers::<0, 31>);
    put_factors(&fit, &mut block[..16]);
    block[16..48].fill(0);
    for (i, code) in codes.iter().enumerate() {
        block[16 + i % 32] |= (code >> 4) << (i / 32);
    }
    put_low_halves(&codes, &mut block[48..]);
}

/// Low 4 bits of each code: 32 bytes for two groups, the first in the low halves.
fn put_low_halves(codes: &[u8; 256], bytes: &mut [u8]) {
    for (codes, bytes) in codes.chunks_exact(64).zip(bytes.chunks_exact_mut(32)) {
        super::pack::put_nibbles(codes, bytes);
    }
}

/// `d`, `dmin` and the 6-bit codes of 8 groups; the inverse of
/// [`scale_and_min`](crate::format::k::scale_and_min).
fn put_factors(fit: &Lined<8>, bytes: &mut [u8]) {
    bytes[..2].copy_from_slice(&f16_of(fit.d).0);
    bytes[2..4].copy_from_slice(&f16_of(fit.dmin).0);
    let bytes = &mut bytes[4..];
    bytes.fill(0);
    for (group, (scale, min)) in fit.codes.iter().enumerate() {
        let (scale, min) = (*scale as u8, *min as u8);
        if group < 4 {
            bytes[group] |= scale;
            bytes[group + 4] |= min;
        } else {
            bytes[group + 4] = scale & 15 | min << 4;
            bytes[group - 4] |= scale >> 4 << 6;
            bytes[group] |= min >> 4 << 6;
        }
    }
}
