//! Gates and activations of the MLP, element by element.

use crate::kernels::simd::exp::exp;
use crate::kernels::simd::{Simd, dispatch};

dispatch! {
    /// `gate = silu(gate) * up`, where `silu(x) = x / (1 + e^-x)`.
    silu_gate = silu_gate_body(gate: &mut [f32], up: &[f32])
}

dispatch! {
    /// `gate = gelu(gate) * up`, with the tanh approximation of GELU (Hendrycks and Gimpel,
    /// arXiv:1606.08415).
    gelu_gate = gelu_gate_body(gate: &mut [f32], up: &[f32])
}

dispatch! {
    /// `x = silu(x)`.
    silu = silu_body(x: &mut [f32])
}

dispatch! {
    /// `x = gelu(x)`, approximated as in [`gelu_gate`].
    gelu = gelu_body(x: &mut [f32])
}

dispatch! {
    /// `gate = swish(min(gate, 7)) * (clamp(up, -7, 7) + 1)`, where `swish(x) = x / (1 + e^(-1.702 x))`, as
    /// in gpt-oss.
    clamped_swiglu = clamped_swiglu_body(gate: &mut [f32], up: &[f32])
}

dispatch! {
    /// `x = swish(min(x, 7))`, as in [`clamped_swiglu`].
    clamped_swish = clamped_swish_body(x: &mut [f32])
}

/// Limit of [`clamped_swiglu`].
const LIMIT: f32 = 7.0;

#[inline(always)]
fn clamped_swiglu_body<S: Simd>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = clamped_swish_of(*gate) * (up.clamp(-LIMIT, LIMIT) + 1.0);
    }
}

#[inline(always)]
fn clamped_swish_body<S: Simd>(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = clamped_swish_of(*x));
}

#[inline(always)]
fn clamped_swish_of(x: f32) -> f32 {
    // Written so that NaN stays NaN.
    let x = if x > LIMIT { LIMIT } else { x };
    x / (1.0 + exp(-1.702 * x))
}

#[inline(always)]
fn silu_gate_body<S: Simd>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[inline(always)]
fn gelu_gate_body<S: Simd>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = gelu_of(*gate) * up;
    }
}

#[inline(always)]
fn silu_body<S: Simd>(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x /= 1.0 + exp(-*x));
}

#[inline(always)]
fn gelu_body<S: Simd>(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = gelu_of(*x));
}

#[inline(always)]
fn gelu_of(x: f32) -> f32 {
    const ROOT_TWO_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    let inner = ROOT_TWO_OVER_PI * (x + 0.044_715 * x * x * x);
    // 0.5 · (1 + tanh(y)) = 1 / (1 + e^(-2y))
    x / (1.0 + exp(-2.0 * inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_those_of_the_formulas() {
        let values: Vec<f32> = (-200..200).map(|i| i as f32 * 0.1).collect();
        let up = vec![1.5f32; values.len()];
        let (mut silu, mut gelu) = (values.clone(), values.clone());
        silu_gate(&mut silu, &up);
        gelu_gate(&mut gelu, &up);
        // Without a gate the results are those of a gate on ones.
        let (mut plain_silu, mut plain_gelu) = (values.clone(), values.clone());
        super::silu(&mut plain_silu);
        super::gelu(&mut plain_gelu);
        for (plain, gated) in [(&plain_silu, &silu), (&plain_gelu, &gelu)] {
            assert!(plain.iter().zip(gated).all(|(plain, gated)| (plain * 1.5 - gated).abs() < 1e-5));
        }
        for ((x, silu), gelu) in values.iter().zip(silu).zip(gelu) {
            let x = f64::from(*x);
            let expected = x / (1.0 + (-x).exp()) * 1.5;
            assert!((f64::from(silu) - expected).abs() < 1e-5, "{x}");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            let expected = 0.5 * x * (1.0 + inner.tanh()) * 1.5;
            assert!((f64::from(gelu) - expected).abs() < 1e-5, "{x}");
        }
        let mut clamped = values.clone();
        let ups: Vec<f32> = values.iter().rev().copied().collect();
        clamped_swiglu(&mut clamped, &ups);
        for ((x, up), clamped) in values.iter().zip(&ups).zip(clamped) {
            let x = f64::from(x.min(7.0));
            let expected = x / (1.0 + (-1.702 * x).exp()) * (f64::from(up.clamp(-7.0, 7.0)) + 1.0);
            assert!((f64::from(clamped) - expected).abs() < 1e-4, "{x} {up}");
        }
        let mut bad = [f32::NAN];
        clamped_swiglu(&mut bad, &[1.0]);
        assert!(bad[0].is_nan());
        silu_gate(&mut bad, &[1.0]);
        assert!(bad[0].is_nan());
    }
}
