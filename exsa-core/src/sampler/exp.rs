//! The sampler's exponential functions: bit-identical on every processor, and fast over a whole row.

use super::scan::LANES;

/// e^x for `x` at most 0, with a relative error below 1e-6; 0 below -87, the end of the normal f32 range.
///
/// The standard library's `exp` is the platform's, so its last bits, and with them a
/// sampled token, would depend on the machine. This function uses only additions and
/// multiplications, which compilers vectorize: x = n ln 2 + r with |r| <= ln 2 / 2, e^r
/// by its Taylor series (the remainder is below 6e-9), and 2^n by writing the exponent.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    // ln 2 in two parts; the first has so few bits that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 leaves no room for a fraction: the sum is rounded to an integer in its lowest bits.
    const ROUND: f32 = 12_582_912.0;

    let clamped = if x > LOWEST { x } else { LOWEST };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut series = 1.0 / 5040.0;
    series = series * r + 1.0 / 720.0;
    series = series * r + 1.0 / 120.0;
    series = series * r + 1.0 / 24.0;
    series = series * r + 1.0 / 6.0;
    series = series * r + 0.5;
    series = series * r + 1.0;
    series = series * r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let power = f32::from_bits(((exponent + 127) << 23) as u32);
    if x > LOWEST { series * power } else { 0.0 }
}

/// e^x of a number of 0 or more, with a relative error below 1e-10; infinity above 700.
pub(super) fn exp_f64(x: f64) -> f64 {
    if x > 700.0 {
        return f64::INFINITY;
    }
    // Halved until its series is short, then squared as often.
    let (mut small, mut squarings) = (x, 0);
    while small > 1.0 / 64.0 {
        small *= 0.5;
        squarings += 1;
    }
    let series = (1..=7).rev().fold(1.0, |sum, n| 1.0 + sum * small / f64::from(n));
    (0..squarings).fold(series, |power, _| power * power)
}

/// Sum of e^((x - best) * scale) over `values`, all at most `best`.
///
/// The order of the additions is fixed, so that the result is the same on every processor.
#[inline]
pub(super) fn mass(values: &[f32], best: f32, scale: f32) -> f64 {
    let mut lanes = [0f32; LANES];
    let parts = values.chunks_exact(LANES);
    let rest = parts.remainder();
    for part in parts {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane += exp((x - best) * scale);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += exp((x - best) * scale);
    }
    sum(lanes)
}

/// Sums of w = e^y and of w y with y = (x - best) * scale over `values`, all at most `best`.
///
/// The order of the additions is fixed, as in [`mass`].
#[inline]
pub(super) fn moments(values: &[f32], best: f32, scale: f32) -> (f64, f64) {
    let (mut masses, mut products) = ([0f32; LANES], [0f32; LANES]);
    let mut add = |part: &[f32]| {
        for ((mass, product), &x) in masses.iter_mut().zip(&mut products).zip(part) {
            let y = (x - best) * scale;
            let weight = exp(y);
            *mass += weight;
            // Avoids the product of 0 and infinity.
            *product += weight * if y > -87.0 { y } else { 0.0 };
        }
    };
    let parts = values.chunks_exact(LANES);
    let rest = parts.remainder();
    parts.for_each(&mut add);
    add(rest);
    (sum(masses), sum(products))
}

/// Sum of the lanes, by halves: a chain of 16 additions would take as long as half of the exponentials.
#[inline(always)]
fn sum(lanes: [f32; LANES]) -> f64 {
    let mut sums = lanes.map(f64::from);
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_f64_is_accurate() {
        for i in 0..7_000 {
            let x = f64::from(i) * 0.1;
            assert!((exp_f64(x) - x.exp()).abs() <= x.exp() * 1e-10, "{x}");
        }
        assert_eq!((exp_f64(0.0), exp_f64(701.0)), (1.0, f64::INFINITY));
    }

    #[test]
    fn moments_sum_any_length() {
        for n in [1, 15, 16, 17, 64, 100] {
            let mut values: Vec<f32> = (0..n).map(|i| i as f32 * 0.1).collect();
            let best = values[n - 1];
            values[0] = if n > 1 { f32::NEG_INFINITY } else { best };
            let (mass, product) = moments(&values, best, 2.0);
            let want = |f: fn(f64) -> f64| -> f64 {
                values.iter().filter(|x| x.is_finite()).map(|&x| f(f64::from(x - best) * 2.0)).sum()
            };
            assert!((mass - want(f64::exp)).abs() < 1e-5 * mass);
            assert!((product - want(|y| y * y.exp())).abs() < 1e-5 * mass);
        }
    }

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(x <= -87.0 || (got - want).abs() <= want * 1e-6, "exp({x}) is {got}, not {want}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        for x in [-87.0, -88.0, -1e9, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0);
        }
        assert!(exp(-86.99) > 0.0);
        assert_eq!(exp(-f32::MIN_POSITIVE / 2.0), 1.0);
    }

    #[test]
    fn mass_sums_any_length() {
        for n in [1, 15, 16, 17, 64, 100] {
            let values: Vec<f32> = (0..n).map(|i| i as f32 * 0.1).collect();
            let best = values[n - 1];
            let want: f64 = values.iter().map(|&x| (f64::from(x - best) / 0.7).exp()).sum();
            assert!((mass(&values, best, 1.0 / 0.7) - want).abs() < 1e-5 * want);
        }
    }
}
