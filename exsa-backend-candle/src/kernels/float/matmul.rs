//! Dot products of many rows with many rows, in f32.

use crate::kernels::simd::{Simd, dispatch};

/// Rows of the left that are multiplied at a time, and rows of the right: their products stay in registers.
const LEFT: usize = 3;
const RIGHT: usize = 4;

dispatch! {
    /// The products of each row of `left`, `[m, width]`, with each row of `right`, `[n, width]`: `out`, `[m,
    /// n]`.
    matmul_f32 = matmul_f32_body(left: &[f32], right: &[f32], width: usize, out: &mut [f32])
}

#[inline(always)]
fn matmul_f32_body<S: Simd>(left: &[f32], right: &[f32], width: usize, out: &mut [f32]) {
    let n = right.len() / width;
    for (left, out) in left.chunks(LEFT * width).zip(out.chunks_mut(LEFT * n)) {
        if left.len() == LEFT * width {
            rows::<S, LEFT>(left, right, width, out);
        } else {
            for (left, out) in left.chunks_exact(width).zip(out.chunks_exact_mut(n)) {
                rows::<S, 1>(left, right, width, out);
            }
        }
    }
}

/// `M` rows of the left.
#[inline(always)]
fn rows<S: Simd, const M: usize>(left: &[f32], right: &[f32], width: usize, out: &mut [f32]) {
    let n = right.len() / width;
    let quads = right.chunks_exact(RIGHT * width);
    let rest = quads.remainder();
    for (i, quad) in quads.enumerate() {
        tile::<S, M, RIGHT>(left, quad, width, &mut out[i * RIGHT..], n);
    }
    let done = n - rest.len() / width;
    for (i, row) in rest.chunks_exact(width).enumerate() {
        tile::<S, M, 1>(left, row, width, &mut out[done + i..], n);
    }
}

/// `M` rows of the left with `N` of the right, to rows of `stride` values.
#[inline(always)]
fn tile<S: Simd, const M: usize, const N: usize>(
    left: &[f32],
    right: &[f32],
    width: usize,
    out: &mut [f32],
    stride: usize,
) {
    let left: [&[f32]; M] = std::array::from_fn(|i| &left[i * width..(i + 1) * width]);
    let right: [&[f32]; N] = std::array::from_fn(|i| &right[i * width..(i + 1) * width]);
    let products = match S::LANES {
        16 => sums::<S, M, N, 16>(left, right, width),
        _ => sums::<S, M, N, 8>(left, right, width),
    };
    for (i, row) in products.iter().enumerate() {
        out[i * stride..i * stride + N].copy_from_slice(row);
    }
}

#[inline(always)]
pub(super) fn sums<S: Simd, const M: usize, const N: usize, const LANES: usize>(
    left: [&[f32]; M],
    right: [&[f32]; N],
    width: usize,
) -> [[f32; N]; M] {
    let whole = width / LANES * LANES;
    let mut sums = [[[0.0f32; LANES]; N]; M];
    for at in (0..whole).step_by(LANES) {
        for i in 0..M {
            let a = &left[i][at..at + LANES];
            for j in 0..N {
                let b = &right[j][at..at + LANES];
                for lane in 0..LANES {
                    sums[i][j][lane] = S::multiply_add(a[lane], b[lane], sums[i][j][lane]);
                }
            }
        }
    }
    let mut products = [[0.0; N]; M];
    for i in 0..M {
        for j in 0..N {
            let rest = left[i][whole..].iter().zip(&right[j][whole..]);
            products[i][j] = sum(&sums[i][j]) + rest.fold(0.0, |sum, (a, b)| S::multiply_add(*a, *b, sum));
        }
    }
    products
}

/// The sum of a vector, halves first.
#[inline(always)]
pub(super) fn sum<const LANES: usize>(lanes: &[f32; LANES]) -> f32 {
    let mut lanes = *lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    #[test]
    fn close_to_exact_and_independent_of_the_batch() {
        for width in [1, 7, 16, 96, 129] {
            for (m, n) in [(1, 1), (2, 3), (3, 4), (7, 9)] {
                let (left, right) = (numbers(m * width, 7), numbers(n * width, 99));
                let mut out = vec![0.0; m * n];
                matmul_f32(&left, &right, width, &mut out);
                for i in 0..m {
                    let mut alone = vec![0.0; n];
                    matmul_f32(&left[i * width..(i + 1) * width], &right, width, &mut alone);
                    assert_eq!(out[i * n..(i + 1) * n], alone);
                    for j in 0..n {
                        let exact: f64 = (0..width)
                            .map(|x| f64::from(left[i * width + x]) * f64::from(right[j * width + x]))
                            .sum();
                        assert!((f64::from(out[i * n + j]) - exact).abs() < 1e-4);
                    }
                }
            }
        }
    }
}
