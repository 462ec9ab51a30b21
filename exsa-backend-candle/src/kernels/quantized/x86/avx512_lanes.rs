//! Packed products with AVX-512 VNNI for the types that [`avx512`](super::avx512) has no kernels of their own
//! for.

use super::avx512::{halves, load};
use crate::kernels::quantized::args::Args;
use crate::kernels::quantized::lanes::{Lanes, multiply};
use crate::kernels::quantized::layout::{PackedType, TILE};
use std::arch::asm;
use std::arch::x86_64::*;

multiply! {
    /// Multiplies the panel with the tile.
    ///
    /// # Safety
    ///
    /// The processor has what [`available`](super::avx512::available) asks for, and `args` were made for
    /// weights of `kind`.
    pub(super) multiply, Avx512, "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c"
}

/// One register.
struct Avx512;

/// Four bytes in all lanes.
///
/// # Safety
///
/// The processor has AVX-512, and four bytes are at `a`.
#[inline(always)]
unsafe fn broadcast(a: *const i8) -> __m512i {
    // SAFETY: the caller says that four bytes are there.
    unsafe { _mm512_set1_epi32(a.cast::<i32>().read_unaligned()) }
}

/// The lowest byte of each lane of 32 bits, four times.
///
/// # Safety
///
/// The processor has AVX-512.
#[inline(always)]
unsafe fn four_times(words: __m512i) -> __m512i {
    // SAFETY: the caller says that the instructions are there.
    unsafe {
        let first = _mm_set_epi64x(0x0c0c_0c0c_0808_0808, 0x0404_0404_0000_0000);
        _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(first))
    }
}

/// Has the compiler finish a sum before it loads other operands.
///
/// # Safety
///
/// The processor has AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn settle(mut sum: __m512i) -> __m512i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(zmm_reg) sum, options(nostack, preserves_flags)) };
    sum
}

// SAFETY (of every block below): the instructions are there by the contract of `Lanes`, and so are the bytes.
impl Lanes for Avx512 {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;
    type Partial = __m512i;
    type Scale = __m512i;
    const SIGNED: bool = false;
    const PARTIAL_MAX: usize = usize::MAX;
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { load(p) }
    }

    #[inline(always)]
    unsafe fn nibbles(bytes: __m512i, plane: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let shifted = if plane == 0 { bytes } else { _mm512_srli_epi16::<4>(bytes) };
            _mm512_and_si512(shifted, _mm512_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn add_fifth(bytes: __m512i, mask: u64) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_mask_add_epi8(bytes, mask, bytes, _mm512_set1_epi8(16)) }
    }

    #[inline(always)]
    unsafe fn add_pairs(bytes: __m512i, high: __m512i, shift: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let moved = match shift {
                0 => _mm512_slli_epi16::<4>(high),
                2 => _mm512_slli_epi16::<2>(high),
                4 => high,
                _ => _mm512_srli_epi16::<2>(high),
            };
            _mm512_or_si512(bytes, _mm512_and_si512(moved, _mm512_set1_epi8(0x30)))
        }
    }

    #[inline(always)]
    unsafe fn dot_full(sum: __m512i, w: __m512i, a: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sum, w, broadcast(a)) }
    }

    #[inline(always)]
    unsafe fn field<const RIGHT: i32, const LEFT: i32>(bytes: __m512i, mask: u8) -> __m512i {
        // SAFETY: as above.
        unsafe {
            // The intrinsics take the numbers unsigned.
            let right = _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(RIGHT));
            let moved = _mm512_sll_epi16(right, _mm_cvtsi32_si128(LEFT));
            _mm512_and_si512(moved, _mm512_set1_epi8(mask as i8))
        }
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], bytes: __m512i) -> __m512i {
        // SAFETY: as above; the table has 16 bytes.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, bytes)
        }
    }

    #[inline(always)]
    unsafe fn store(p: *mut u8, bytes: __m512i) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(p.cast(), bytes) }
    }

    #[inline(always)]
    unsafe fn unzip(p: *const u8) -> [__m512i; 2] {
        // SAFETY: as above.
        unsafe {
            let (a, b) = (load(p), load(p.add(64)));
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            [_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b)]
        }
    }

    #[inline(always)]
    unsafe fn spread(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { four_times(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn sign_codes<const SHIFT: i32>(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe {
            // The intrinsic takes the number unsigned.
            let words = _mm512_srl_epi32(load(p), _mm_cvtsi32_si128(SHIFT));
            let codes = _mm512_and_si512(words, _mm512_set1_epi32(127));
            // Both nibbles together have as many set bits, modulo two, as the code.
            let nibbles = _mm512_xor_si512(codes, _mm512_srli_epi32::<4>(codes));
            let nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi32(15));
            let odd = 0x8000_0080_0080_8000_u64 as i64;
            let table = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0080_8000_8000_0080, odd));
            four_times(_mm512_or_si512(codes, _mm512_shuffle_epi8(table, nibbles)))
        }
    }

    #[inline(always)]
    unsafe fn signed<const HALF: usize>(bytes: __m512i, signs: __m512i, offset: u8) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let bit = _mm512_set1_epi32(if HALF == 0 { 0x0804_0201 } else { 0x8040_2010_u32 as i32 });
            let offset = _mm512_set1_epi8(offset as i8);
            let sum = _mm512_add_epi8(offset, bytes);
            _mm512_mask_sub_epi8(sum, _mm512_test_epi8_mask(signs, bit), offset, bytes)
        }
    }

    #[inline(always)]
    unsafe fn digit(fractions: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let one = _mm512_cmpge_epu8_mask(fractions, _mm512_set1_epi8(86));
            let two = _mm512_cmpge_epu8_mask(fractions, _mm512_set1_epi8(171_u8 as i8));
            let ones = _mm512_maskz_mov_epi8(one, _mm512_set1_epi8(1));
            _mm512_mask_mov_epi8(ones, two, _mm512_set1_epi8(2))
        }
    }

    #[inline(always)]
    unsafe fn triple(fractions: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_add_epi8(fractions, _mm512_add_epi8(fractions, fractions)) }
    }

    #[inline(always)]
    unsafe fn open(sum: __m512i) -> __m512i {
        sum
    }

    #[inline(always)]
    unsafe fn partial(sum: __m512i, w: __m512i, a: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { Self::dot_full(sum, w, a) }
    }

    #[inline(always)]
    unsafe fn settle(partial: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { settle(partial) }
    }

    #[inline(always)]
    unsafe fn settle_ints(sum: Self::Ints) -> Self::Ints {
        // SAFETY: as above.
        unsafe { settle(sum) }
    }

    #[inline(always)]
    unsafe fn settle_floats(sum: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_castsi512_ps(settle(_mm512_castps_si512(sum))) }
    }

    #[inline(always)]
    unsafe fn close(_: __m512i, partial: __m512i) -> __m512i {
        partial
    }

    #[inline(always)]
    unsafe fn close_scaled(sum: __m512i, partial: __m512i, scale: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { Self::mul_add(sum, partial, scale) }
    }

    #[inline(always)]
    unsafe fn scales(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn pairs(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_pairs(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn pair_nibbles(pairs: __m512i, plane: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let shifted = if plane == 0 { pairs } else { _mm512_srli_epi16::<4>(pairs) };
            _mm512_and_si512(shifted, _mm512_set1_epi16(15))
        }
    }

    #[inline(always)]
    unsafe fn of_pairs(pairs: __m512i, which: usize) -> __m512i {
        // SAFETY: as above.
        unsafe { Self::ints_of_pairs(pairs, which) }
    }

    #[inline(always)]
    unsafe fn ints_of_pairs(pairs: __m512i, which: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let first = if which == 0 { _mm512_slli_epi32::<16>(pairs) } else { pairs };
            _mm512_srai_epi32::<16>(first)
        }
    }

    #[inline(always)]
    unsafe fn pair_dot(sum: __m512i, pairs: __m512i, a: *const i16) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpwssd_epi32(sum, pairs, broadcast(a.cast())) }
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn mul_add(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_add_epi32(sum, _mm512_mullo_epi32(a, b)) }
    }

    #[inline(always)]
    unsafe fn floats(ints: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn powers(p: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let exponents = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)));
            let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), exponents);
            let small = _mm512_cmplt_epi32_mask(exponents, _mm512_set1_epi32(2));
            _mm512_castsi512_ps(_mm512_mask_blend_epi32(small, normal, subnormal))
        }
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { halves(p) }
    }

    #[inline(always)]
    unsafe fn splat_float(value: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_floats(p: *const f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn array(floats: __m512) -> [f32; TILE] {
        let mut out = [0.0; TILE];
        // SAFETY: as above; there is room for 16.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), floats) };
        out
    }
}
