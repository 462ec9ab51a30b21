//! The sampler's logarithm: bit-identical on every processor.

/// Natural logarithm of a positive normal number; like the sampler's `exp`, it uses only exactly rounded
/// operations, so that every processor computes the same bits.
pub(super) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    exponent as f64 * std::f64::consts::LN_2 + atanh2((m - 1.0) / (m + 1.0))
}

/// 2 atanh(s) for |s| <= 1/3.
pub(super) fn atanh2(s: f64) -> f64 {
    const RECIPROCALS: [f64; 16] = [
        1.0 / 31.0,
        1.0 / 29.0,
        1.0 / 27.0,
        1.0 / 25.0,
        1.0 / 23.0,
        1.0 / 21.0,
        1.0 / 19.0,
        1.0 / 17.0,
        1.0 / 15.0,
        1.0 / 13.0,
        1.0 / 11.0,
        1.0 / 9.0,
        1.0 / 7.0,
        1.0 / 5.0,
        1.0 / 3.0,
        1.0,
    ];
    let square = s * s;
    let sum = RECIPROCALS.iter().fold(1.0 / 33.0, |sum, reciprocal| sum * square + reciprocal);
    (s + s) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_is_accurate() {
        for i in 1..20_000 {
            for x in [f64::from(i) * 1e-4, f64::from(i) * 1e12, 1.0 / f64::from(i)] {
                assert!((ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs().max(1.0), "{x}");
            }
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
