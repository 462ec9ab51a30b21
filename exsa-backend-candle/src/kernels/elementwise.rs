//! Element by element: written once in plain Rust, compiled for each instruction set.

use super::isa::for_each_isa;

for_each_isa! {
    /// `gate = silu(gate) * up`, where `silu(x) = x / (1 + e^-x)`.
    pub fn silu_gate(gate: &mut [f32], up: &[f32]) => silu_gate_body
}

for_each_isa! {
    /// `gate = gelu(gate) * up`, with the tanh approximation of GELU (Hendrycks and Gimpel, arXiv:1606.08415).
    pub fn gelu_gate(gate: &mut [f32], up: &[f32]) => gelu_gate_body
}

#[inline(always)]
fn silu_gate_body<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp::<FMA>(-*gate)) * up;
    }
}

#[inline(always)]
fn gelu_gate_body<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    const ROOT_TWO_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = *gate;
        let inner = ROOT_TWO_OVER_PI * (x + 0.044_715 * x * x * x);
        // 0.5 · (1 + tanh(y)) = 1 / (1 + e^(-2y))
        *gate = x / (1.0 + exp::<FMA>(-2.0 * inner)) * up;
    }
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` within 2 units in the last place; 0 below -87.3, and at most e^88.3. Not a number stays one.
///
/// `e^x = 2^n · e^r` with `n = round(x / ln 2)`, and a polynomial of degree 6 for `e^r`, `|r| ≤ ln 2 / 2`.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking off 1.5 · 2^23 rounds to an integer.
    const MAGIC: f32 = 12_582_912.0;
    // `clamp` would not let a NaN through on every instruction set.
    let clamped = if x > 88.3 { 88.3 } else { x };
    let low = clamped < -87.3;
    let clamped = if low { -87.3 } else { clamped };
    let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = fma::<FMA>(n, -LN2_HIGH, clamped);
    let r = fma::<FMA>(n, -LN2_LOW, r);
    let mut p = 1.388_888_9e-3;
    p = fma::<FMA>(p, r, 8.333_334e-3);
    p = fma::<FMA>(p, r, 4.166_666_8e-2);
    p = fma::<FMA>(p, r, 0.166_666_67);
    p = fma::<FMA>(p, r, 0.5);
    p = fma::<FMA>(p, r, 1.0);
    p = fma::<FMA>(p, r, 1.0);
    // The integer sits in the low bits of `shifted`.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if low { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close_everywhere() {
        for i in -9000..9000 {
            let x = i as f32 * 0.0097;
            if (-87.0..88.0).contains(&x) {
                for y in [exp::<true>(x), exp::<false>(x)] {
                    let exact = f64::from(x).exp();
                    assert!((f64::from(y) - exact).abs() <= exact * 3e-7, "{x}: {y} {exact}");
                }
            }
        }
        assert_eq!(exp::<false>(f32::NEG_INFINITY), 0.0);
        assert!(exp::<false>(f32::INFINITY) > 1e38);
        assert!(exp::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn gates_are_those_of_the_formulas() {
        let values: Vec<f32> = (-200..200).map(|i| i as f32 * 0.1).collect();
        let up = vec![1.5f32; values.len()];
        let (mut silu, mut gelu) = (values.clone(), values.clone());
        silu_gate(&mut silu, &up);
        gelu_gate(&mut gelu, &up);
        for ((x, silu), gelu) in values.iter().zip(silu).zip(gelu) {
            let x = f64::from(*x);
            let expected = x / (1.0 + (-x).exp()) * 1.5;
            assert!((f64::from(silu) - expected).abs() < 1e-5, "{x}");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            let expected = 0.5 * x * (1.0 + inner.tanh()) * 1.5;
            assert!((f64::from(gelu) - expected).abs() < 1e-5, "{x}");
        }
        let mut bad = [f32::NAN];
        silu_gate(&mut bad, &[1.0]);
        assert!(bad[0].is_nan());
    }
}
