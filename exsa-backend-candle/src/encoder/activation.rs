//! Activations of encoders' MLPs, element by element.

use crate::kernels::simd::exp::exp;
use exsa_models::encoder::EncoderActivation;

/// `x = activation(x)`.
pub(super) fn activate(activation: EncoderActivation, x: &mut [f32]) {
    match activation {
        EncoderActivation::Gelu => x.iter_mut().for_each(|x| *x = gelu(*x)),
        EncoderActivation::GeluTanh => crate::kernels::float::gelu(x),
        EncoderActivation::Silu => crate::kernels::float::silu(x),
    }
}

/// `x / 2 * (1 + erf(x / sqrt(2)))`.
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function by formula 7.1.26 of Abramowitz and Stegun, off by 1.5e-7 at most.
fn erf(x: f32) -> f32 {
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [0.254_829_6, -0.284_496_72, 1.421_413_8, -1.453_152, 1.061_405_4];
    let t = 1.0 / (1.0 + P * x.abs());
    let series = t * (A[0] + t * (A[1] + t * (A[2] + t * (A[3] + t * A[4]))));
    (1.0 - series * exp(-x * x)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_is_that_of_tables() {
        // Abramowitz and Stegun, table 7.1.
        for (x, expected) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)] {
            assert!((erf(x) - expected).abs() < 5e-7 && (erf(-x) + expected).abs() < 5e-7, "{x}");
        }
        assert_eq!((gelu(0.0), gelu(20.0), gelu(-20.0)), (0.0, 20.0, 0.0));
        assert!((gelu(1.0) - 0.841_344_7).abs() < 1e-6 && gelu(f32::NAN).is_nan());
    }
}
