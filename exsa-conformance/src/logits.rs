//! Owned copies of rows of logits.

use exsa_core::backend::Output;

/// Rows of logits, each of `n_vocab` values.
pub(crate) type Rows = Vec<Vec<f32>>;

/// Copies the rows that a session lends.
pub(crate) fn copy(output: Output<'_>) -> Rows {
    let Some(logits) = output.logits() else { return Rows::new() };
    (0..logits.rows()).filter_map(|row| logits.row(row)).map(<[f32]>::to_vec).collect()
}

/// The largest difference of two rows, relative to the largest
/// expected value if that is over 1. NaN if either row contains a NaN.
pub(crate) fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| {
        // Infinities of the same sign are equal, but their difference is NaN.
        if a == b { 0.0 } else { (a - b).abs() }
    });
    differences.fold(0.0f32, |most, d| if d.is_nan() || most.is_nan() { f32::NAN } else { most.max(d) })
        / scale
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn differences_are_relative_to_large_logits_and_nan_is_no_equal() {
        assert_eq!(difference(&[0.5, 0.0], &[0.0, 0.0]), 0.5);
        assert_eq!(difference(&[90.0], &[100.0]), 0.1);
        assert!(difference(&[f32::NAN, 1.0], &[0.0, 1.0]).is_nan());
        assert!(difference(&[1.0], &[f32::NAN]).is_nan());
        assert_eq!(difference(&[f32::NEG_INFINITY], &[f32::NEG_INFINITY]), 0.0);
        assert!(difference(&[f32::INFINITY], &[0.0]).is_infinite());
    }
}
