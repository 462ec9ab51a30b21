//! The exponential function in a form that compilers turn into vector code.

/// `e^x` to within 3e-7 of it for `x` up to 88; 0 below -87, NaN for NaN.
///
/// `e^x = 2^n * e^r` with `n` the integer nearest to `x / ln 2`, and the Taylor polynomial of degree 6 for
/// `|r| <= ln 2 / 2`, whose error is below `r^7 / 7! = 1.2e-7`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    // Adding it shifts the fraction out of an f32, and leaves the integer in its lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    // ln 2 in two parts, the first of them short, so that its products with small integers are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Written so that NaN stays NaN.
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > 88.0 { 88.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut sum = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < LOWEST { 0.0 } else { sum * power }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn close_to_the_exact_one() {
        let mut worst = 0.0f64;
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
