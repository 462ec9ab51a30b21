//! Weighted least squares for one group of values.
//!
//! With the levels `q` of all values held fixed, the best scale (and minimum) is the solution of a linear
//! equation; with the scale held fixed, the best levels are the nearest. A fit tries scales around the one
//! that maps the largest value to the end of the range, solves for each, and then alternates from the best
//! until the error no longer decreases. This is Lloyd's method (1982) for a quantizer whose levels depend on
//! two parameters.

use super::levels::Levels;

/// Number of independent partial sums, so that sums compile to vector instructions.
const LANES: usize = 8;

/// Maximum alternations after the search; most fits converge after two.
const ALTERNATIONS_MAX: usize = 6;

/// Sums of a group over its values `x` with weights `w` and levels `q`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// Sum of `w`.
    pub(super) w: f32,
    /// Sum of `w * x`.
    pub(super) x: f32,
    /// Sum of `w * q`.
    pub(super) q: f32,
    /// Sum of `w * q * q`.
    pub(super) qq: f32,
    /// Sum of `w * q * x`.
    pub(super) qx: f32,
}

impl Sums {
    /// The sums for levels nearest to `inverse * (x - min)`.
    #[inline]
    pub(super) fn of<L: Levels>(x: &[f32], w: &[f32], inverse: f32, min: f32, levels: L) -> Self {
        let mut lanes = [[0.0f32; LANES]; 5];
        let (x, _) = x.as_chunks::<LANES>();
        let (w, _) = w.as_chunks::<LANES>();
        for (x, w) in x.iter().zip(w) {
            for i in 0..LANES {
                let q = levels.nearest(inverse * (x[i] - min));
                let (wx, wq) = (w[i] * x[i], w[i] * q);
                lanes[0][i] += w[i];
                lanes[1][i] += wx;
                lanes[2][i] += wq;
                lanes[3][i] += wq * q;
                lanes[4][i] += wx * q;
            }
        }
        let [w, x, q, qq, qx] = lanes.map(|lane| lane.iter().sum());
        Self { w, x, q, qq, qx }
    }

    /// The weighted squared error of `scale * q + min`, less that of zeros.
    #[inline]
    pub(super) fn error(&self, scale: f32, min: f32) -> f32 {
        scale * (scale * self.qq + 2.0 * (min * self.q - self.qx)) + min * (min * self.w - 2.0 * self.x)
    }

    /// The best scale without a minimum; `None` if every level is 0.
    #[inline]
    pub(super) fn scale(&self) -> Option<f32> {
        let scale = self.qx / self.qq;
        scale.is_finite().then_some(scale)
    }

    /// The best scale and minimum; `None` if all levels are equal.
    #[inline]
    pub(super) fn line(&self) -> Option<(f32, f32)> {
        let determinant = self.w * self.qq - self.q * self.q;
        let scale = (self.w * self.qx - self.x * self.q) / determinant;
        let min = (self.qq * self.x - self.q * self.qx) / determinant;
        // A determinant that is only rounding error leads to a fit that is discarded by the comparison of
        // errors.
        (determinant > 0.0 && scale.is_finite() && min.is_finite()).then_some((scale, min))
    }
}

/// The value of largest magnitude; 0 if there is none.
pub(super) fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |peak: f32, x| if x.abs() > peak.abs() { *x } else { peak })
}

/// Scales to try: `count` steps of `step` levels around the end of the range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    /// First offset, in levels: negative leaves levels unused, positive clips the largest values.
    pub(super) from: f32,
    /// Distance of two offsets.
    pub(super) step: f32,
    /// Number of offsets.
    pub(super) count: usize,
}

impl Search {
    pub(super) fn offsets(self) -> impl Iterator<Item = f32> {
        (0..self.count).map(move |i| self.from + self.step * i as f32)
    }
}

/// The scale for which `levels` fit `x` best; 0 if all values are 0, negative only if the levels are not
/// symmetric.
pub(super) fn fit_scale<L: Levels>(x: &[f32], w: &[f32], levels: L, search: Search) -> f32 {
    let symmetric = levels.low() == -levels.high();
    let peak = if symmetric { peak(x).abs() } else { peak(x) };
    if peak.abs() < f32::MIN_POSITIVE {
        return 0.0;
    }
    let ends = [levels.low(), levels.high()];
    let ends = ends.into_iter().skip(usize::from(symmetric)).filter(|end| *end != 0.0);
    let (mut best, mut least) = (0.0, 0.0);
    for end in ends {
        for offset in search.offsets() {
            let inverse = (end + offset * end.signum()) / peak;
            let sums = Sums::of(x, w, inverse, 0.0, levels);
            if let Some(scale) = sums.scale() {
                let error = sums.error(scale, 0.0);
                if error < least {
                    (best, least) = (scale, error);
                }
            }
        }
    }
    for _ in 0..ALTERNATIONS_MAX {
        let sums = Sums::of(x, w, 1.0 / best, 0.0, levels);
        let Some(scale) = sums.scale() else { break };
        let error = sums.error(scale, 0.0);
        if error >= least {
            break;
        }
        (best, least) = (scale, error);
    }
    // If all weights are 0 or sums overflow f32, maps the largest value to the end of the range.
    if best == 0.0 { peak / levels.low().abs().max(levels.high()) } else { best }
}

/// The line `scale * q + min`, with levels from 0 on, that fits `x` best.
///
/// `min_max` is the greatest minimum allowed: 0 for formats that subtract one, infinity for others.
pub(super) fn fit_line<L: Levels>(
    x: &[f32],
    w: &[f32],
    levels: L,
    search: Search,
    min_max: f32,
) -> (f32, f32) {
    let low = x.iter().copied().fold(f32::INFINITY, f32::min).min(min_max);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = high - low;
    // A range that is NaN or overflows f32 gets a single level.
    if !(range > f32::MIN_POSITIVE && range.is_finite()) {
        return (0.0, low.max(-f32::MAX).min(min_max));
    }
    let top = levels.high();
    let first = (range / top, low);
    let mut best = first;
    let mut least = Sums::of(x, w, 1.0 / first.0, first.1, levels).error(first.0, first.1);
    let mut consider = |best: &mut (f32, f32), inverse: f32, min: f32| {
        let sums = Sums::of(x, w, inverse, min, levels);
        let line = sums.line().filter(|(_, min)| *min <= min_max);
        let line = line.or_else(|| sums.scale().map(|scale| (scale, min_max.min(0.0))));
        let Some(line) = line.filter(|line| line.0 > 0.0) else { return false };
        let error = sums.error(line.0, line.1);
        let better = error < least;
        if better {
            (*best, least) = (line, error);
        }
        better
    };
    // Maps the lowest value to level 0, or half a level below it.
    for clipped in [0.0, 0.5] {
        for offset in search.offsets() {
            let inverse = (top + offset) / range;
            let min = low + clipped / inverse;
            consider(&mut best, inverse, min.min(min_max));
        }
    }
    for _ in 0..ALTERNATIONS_MAX {
        let (scale, min) = best;
        if !consider(&mut best, 1.0 / scale, min) {
            break;
        }
    }
    best
}
