//! Vectors of f32 in a register, for kernels whose registers are counted.
//!
//! [`Simd`](super::Simd) leaves it to the compiler how loops over arrays become vector code. Where many sums
//! have to stay in registers that is not reliable; these kernels say what a register holds.

/// A vector register of f32.
///
/// # Safety
///
/// Every method may only be called where the processor has the instructions of the implementing type;
/// pointers hold as many values as the vector.
pub(crate) trait Vector: Copy {
    /// Values in the vector, a divisor of 16.
    const LANES: usize;

    /// All lanes `x`.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn splat(x: f32) -> Self;

    /// From memory.
    ///
    /// # Safety
    ///
    /// The instructions are there, and as many values as the vector has.
    unsafe fn load(from: *const f32) -> Self;

    /// From f16 in memory.
    ///
    /// # Safety
    ///
    /// The instructions are there, and as many values as the vector has.
    unsafe fn load_f16(from: *const half::f16) -> Self;

    /// From bf16 in memory.
    ///
    /// # Safety
    ///
    /// The instructions are there, and as many values as the vector has.
    unsafe fn load_bf16(from: *const half::bf16) -> Self;

    /// From bytes in memory.
    ///
    /// # Safety
    ///
    /// The instructions are there, and as many values as the vector has.
    unsafe fn load_i8(from: *const i8) -> Self;

    /// To memory.
    ///
    /// # Safety
    ///
    /// The instructions are there, and as many values as the vector has.
    unsafe fn store(self, to: *mut f32);

    /// `self * a + b`.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;

    /// `self * a`.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn multiply(self, a: Self) -> Self;

    /// `self + a`.
    ///
    /// # Safety
    ///
    /// The instructions are there.
    unsafe fn add(self, a: Self) -> Self;
}

/// Plain arrays, for every processor; `FUSED` as in [`Simd`](super::Simd).
#[derive(Clone, Copy)]
pub(crate) struct Array<const FUSED: bool>([f32; 8]);

/// Plain arrays whose multiply-adds are exact, which without the instruction is slow.
pub(crate) type Fused = Array<true>;

impl<const FUSED: bool> Vector for Array<FUSED> {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const half::f16) -> Self {
        use half::slice::HalfFloatSliceExt;
        let mut values = [0.0; 8];
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[half::f16; 8]>().read_unaligned() }.convert_to_f32_slice(&mut values);
        Self(values)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> Self {
        // SAFETY: the caller's promise.
        let bits = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        Self(bits.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[i8; 8]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(mut self, a: Self, b: Self) -> Self {
        for ((x, a), b) in self.0.iter_mut().zip(a.0).zip(b.0) {
            *x = if FUSED { x.mul_add(a, b) } else { *x * a + b };
        }
        self
    }

    #[inline(always)]
    unsafe fn multiply(mut self, a: Self) -> Self {
        self.0.iter_mut().zip(a.0).for_each(|(x, a)| *x *= a);
        self
    }

    #[inline(always)]
    unsafe fn add(mut self, a: Self) -> Self {
        self.0.iter_mut().zip(a.0).for_each(|(x, a)| *x += a);
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    impl Vector for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the processor has AVX-512, by the trait's contract.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above, and the values are there.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const half::f16) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const half::bf16) -> Self {
            // SAFETY: as above.
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(self, a, b) }
        }

        #[inline(always)]
        unsafe fn multiply(self, a: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_mul_ps(self, a) }
        }

        #[inline(always)]
        unsafe fn add(self, a: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(self, a) }
        }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the processor has AVX2, FMA and F16C, by the trait's contract.
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above, and the values are there.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const half::f16) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const half::bf16) -> Self {
            // SAFETY: as above.
            unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            }
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(self, a, b) }
        }

        #[inline(always)]
        unsafe fn multiply(self, a: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_mul_ps(self, a) }
        }

        #[inline(always)]
        unsafe fn add(self, a: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(self, a) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::Vector;
    use std::arch::aarch64::*;
    use std::arch::asm;

    impl Vector for float32x4_t {
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: every aarch64 processor has NEON.
            unsafe { vdupq_n_f32(x) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above, and the values are there.
            unsafe { vld1q_f32(from) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const half::f16) -> Self {
            // SAFETY: as above; the conversion is part of NEON.
            unsafe {
                let bits = vld1_u16(from.cast());
                let values: Self;
                asm!(
                    "fcvtl {0:v}.4s, {1:v}.4h",
                    out(vreg) values, in(vreg) bits,
                    options(pure, nomem, nostack, preserves_flags),
                );
                values
            }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const half::bf16) -> Self {
            // SAFETY: as above.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: as above.
            let values = unsafe { from.cast::<[i8; 4]>().read_unaligned() }.map(f32::from);
            // SAFETY: as above.
            unsafe { Self::load(values.as_ptr()) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { vst1q_f32(to, self) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { vfmaq_f32(b, self, a) }
        }

        #[inline(always)]
        unsafe fn multiply(self, a: Self) -> Self {
            // SAFETY: as above.
            unsafe { vmulq_f32(self, a) }
        }

        #[inline(always)]
        unsafe fn add(self, a: Self) -> Self {
            // SAFETY: as above.
            unsafe { vaddq_f32(self, a) }
        }
    }
}
