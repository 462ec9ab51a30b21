//! Loops over host memory that are worth compiling for more than one instruction set.
//!
//! Each kernel is written once, as safe code in vectors of [`LANES`](Simd::LANES) values, and compiled for
//! every [`Simd`]; the processor's level is asked for at run time. The order in which values are added
//! depends on the level alone and not on how many rows are computed at once, so a row of a batch has the same
//! result as the row alone, bit by bit.

use super::vector::Vector;

/// An instruction set, as far as a kernel has to know it.
pub(crate) trait Simd {
    /// Values in a vector of f32.
    const LANES: usize;
    /// Whether `a * b + c` is one instruction; if not, the exact one would be a slow call.
    const FUSED: bool;
    /// A vector register.
    type Vector: Vector;

    /// `a * b + c`, rounded once or twice.
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        if Self::FUSED { a.mul_add(b, c) } else { a * b + c }
    }
}

/// Instructions that every processor of the target has.
pub(crate) struct Baseline;

impl Simd for Baseline {
    const LANES: usize = 8;
    const FUSED: bool = cfg!(target_arch = "aarch64");
    type Vector = super::vector::Array<{ cfg!(target_arch = "aarch64") }>;
}

/// AVX2 with FMA and F16C.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx2 {
    const LANES: usize = 8;
    const FUSED: bool = true;
    type Vector = std::arch::x86_64::__m256;
}

/// AVX-512.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx512 {
    const LANES: usize = 16;
    const FUSED: bool = true;
    type Vector = std::arch::x86_64::__m512;
}

/// Defines a function that runs the kernel `$body::<S, _>` for the best [`Simd`] `S` of the processor.
macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident = $body:ident ($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                /// # Safety
                ///
                /// The processor has the features that it is compiled for.
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
                fn avx512($($arg: $type),*) {
                    $body::<$crate::kernels::simd::Avx512>($($arg),*);
                }
                /// # Safety
                ///
                /// The processor has the features that it is compiled for.
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) {
                    $body::<$crate::kernels::simd::Avx2>($($arg),*);
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                {
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<$crate::kernels::simd::Baseline>($($arg),*);
        }
    };
}
pub(crate) use dispatch;
