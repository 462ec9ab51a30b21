//! Quantizing activations with AVX-512: the numbers are those of the plain loop in
//! [`activations`](super::activations).

use std::arch::x86_64::*;

/// Whether this processor has what is needed.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// The greatest magnitude of `block`, or something that is no number if any value is none or infinite.
///
/// # Safety
///
/// [`available`] is true.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn largest(block: &[[f32; 32]]) -> f32 {
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let mut most = [_mm512_setzero_si512(); 2];
    for values in block {
        for (most, half) in most.iter_mut().zip(values.as_chunks::<16>().0) {
            // SAFETY: sixteen values are there.
            let bits = unsafe { _mm512_loadu_si512(half.as_ptr().cast()) };
            *most = _mm512_max_epi32(*most, _mm512_and_si512(bits, magnitude));
        }
    }
    // Without their sign, the bits of floats have the order of the floats, with what is no number above all.
    let largest = f32::from_bits(_mm512_reduce_max_epi32(_mm512_max_epi32(most[0], most[1])) as u32);
    if largest.is_finite() { largest } else { f32::NAN }
}

/// Quantizes to `round(value * inverse)`; the sums of the first and the second 16.
///
/// # Safety
///
/// [`available`] is true.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn quantize32(values: &[f32; 32], inverse: f32, q: &mut [i8; 32]) -> [i32; 2] {
    let inverse = _mm512_set1_ps(inverse);
    let mut sums = [0; 2];
    for (i, sum) in sums.iter_mut().enumerate() {
        // SAFETY: sixteen values and sixteen bytes are there.
        unsafe {
            let scaled = _mm512_mul_ps(_mm512_loadu_ps(values.as_ptr().add(i * 16)), inverse);
            let ints = _mm512_cvtps_epi32(scaled);
            _mm_storeu_si128(q.as_mut_ptr().add(i * 16).cast(), _mm512_cvtepi32_epi8(ints));
            *sum = _mm512_reduce_add_epi32(ints);
        }
    }
    sums
}
