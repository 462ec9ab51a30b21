//! Packed products on x86 without AVX-512: AVX2, with AVX-VNNI where the processor has it.

use crate::kernels::quantized::args::Args;
use crate::kernels::quantized::lanes::{Lanes, multiply};
use crate::kernels::quantized::layout::{PackedType, TILE};
use std::arch::asm;
use std::arch::x86_64::*;

/// Whether this processor has what [`multiply()`] needs, and what [`multiply_vnni`] needs.
pub fn available() -> (bool, bool) {
    let base = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    (base, base && is_x86_feature_detected!("avxvnni"))
}

multiply! {
    /// Multiplies the panel with the tile.
    ///
    /// # Safety
    ///
    /// The processor has AVX2, FMA and F16C, and `args` were made for weights of `kind`.
    pub(in crate::kernels::quantized) multiply, Avx2<false>, "avx2,fma,f16c"
}

multiply! {
    /// The same with AVX-VNNI.
    ///
    /// # Safety
    ///
    /// As of [`multiply()`], and the processor has AVX-VNNI.
    pub(in crate::kernels::quantized) multiply_vnni, Avx2<true>, "avx2,fma,f16c,avxvnni"
}

/// Two registers of eight lanes each.
struct Avx2<const VNNI: bool>;

type Two<T> = [T; 2];

/// Calls `f` for both halves.
#[inline(always)]
fn both<T>(f: impl Fn(usize) -> T) -> Two<T> {
    [f(0), f(1)]
}

/// Four bytes in all lanes.
///
/// # Safety
///
/// The processor has AVX2, and four bytes are at `a`.
#[inline(always)]
unsafe fn broadcast(a: *const i8) -> __m256i {
    // SAFETY: the caller says that four bytes are there.
    unsafe { _mm256_set1_epi32(a.cast::<i32>().read_unaligned()) }
}

/// The lowest byte of each lane of 32 bits, four times.
///
/// # Safety
///
/// The processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn four_times(words: __m256i) -> __m256i {
    let first = _mm_set_epi64x(0x0c0c_0c0c_0808_0808, 0x0404_0404_0000_0000);
    _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(first))
}

/// Signs of [`Lanes::sign_codes`], for eight lanes.
///
/// # Safety
///
/// The processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sign_codes<const SHIFT: i32>(words: __m256i) -> __m256i {
    let codes = _mm256_and_si256(_mm256_srli_epi32::<SHIFT>(words), _mm256_set1_epi32(127));
    // Both nibbles together have as many set bits, modulo two, as the code.
    let nibbles = _mm256_xor_si256(codes, _mm256_srli_epi32::<4>(codes));
    let nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi32(15));
    let odd = 0x8000_0080_0080_8000_u64 as i64;
    let table = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0080_8000_8000_0080, odd));
    // SAFETY: the instructions are there.
    unsafe { four_times(_mm256_or_si256(codes, _mm256_shuffle_epi8(table, nibbles))) }
}

/// Has the compiler finish sums before it loads other operands.
///
/// # Safety
///
/// The processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn settle([mut low, mut high]: Two<__m256i>) -> Two<__m256i> {
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {0} {1} */", inout(ymm_reg) low, inout(ymm_reg) high, options(nostack, preserves_flags));
    }
    [low, high]
}

// SAFETY (of every block below): the instructions are there by the contract of `Lanes`, and so are the bytes.
impl<const VNNI: bool> Lanes for Avx2<VNNI> {
    type Bytes = Two<__m256i>;
    type Ints = Two<__m256i>;
    type Floats = Two<__m256>;
    /// Of 16 bits without VNNI: the pairs that one instruction adds up, whose sums are not widened each time.
    type Partial = Two<__m256i>;
    /// Without VNNI numbers of 16 bits, twice in each lane: one instruction widens sums and multiplies them.
    type Scale = Two<__m256i>;
    const SIGNED: bool = !VNNI;
    /// Without VNNI a lane of 16 bits takes two products with -127 to 127 of each group.
    const PARTIAL_MAX: usize = if VNNI { usize::MAX } else { i16::MAX as usize / (2 * 127) };
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_loadu_si256(p.add(i * 32).cast()) })
    }

    #[inline(always)]
    unsafe fn nibbles(bytes: Self::Bytes, plane: usize) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe {
            let shifted = if plane == 0 { bytes[i] } else { _mm256_srli_epi16::<4>(bytes[i]) };
            _mm256_and_si256(shifted, _mm256_set1_epi8(15))
        })
    }

    #[inline(always)]
    unsafe fn add_fifth(bytes: Self::Bytes, mask: u64) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe {
            // Each byte takes the byte of the mask that has its bit, and looks at that bit.
            let mask = _mm256_set1_epi32((mask >> (i * 32)) as i32);
            let which =
                _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let set = _mm256_and_si256(_mm256_shuffle_epi8(mask, which), bit);
            let set = _mm256_cmpeq_epi8(set, bit);
            _mm256_or_si256(bytes[i], _mm256_and_si256(set, _mm256_set1_epi8(16)))
        })
    }

    #[inline(always)]
    unsafe fn add_pairs(bytes: Self::Bytes, high: Self::Bytes, shift: usize) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe {
            let moved = match shift {
                0 => _mm256_slli_epi16::<4>(high[i]),
                2 => _mm256_slli_epi16::<2>(high[i]),
                4 => high[i],
                _ => _mm256_srli_epi16::<2>(high[i]),
            };
            _mm256_or_si256(bytes[i], _mm256_and_si256(moved, _mm256_set1_epi8(0x30)))
        })
    }

    #[inline(always)]
    unsafe fn dot_full(sum: Self::Ints, w: Self::Bytes, a: *const i8) -> Self::Ints {
        // SAFETY: as above.
        unsafe {
            let a = broadcast(a);
            both(|i| {
                if VNNI {
                    return _mm256_dpbusd_avx_epi32(sum[i], w[i], a);
                }
                // The sign goes to the activations, which are never -128: at most 128 · 127 · 2, which fits.
                let w = _mm256_xor_si256(w[i], _mm256_set1_epi8(-128));
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
                _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            })
        }
    }

    #[inline(always)]
    unsafe fn field<const RIGHT: i32, const LEFT: i32>(bytes: Self::Bytes, mask: u8) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe {
            let moved = _mm256_slli_epi16::<LEFT>(_mm256_srli_epi16::<RIGHT>(bytes[i]));
            _mm256_and_si256(moved, _mm256_set1_epi8(mask as i8))
        })
    }

    #[inline(always)]
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_or_si256(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], bytes: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above; the table has 16 bytes.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            both(|i| _mm256_shuffle_epi8(table, bytes[i]))
        }
    }

    #[inline(always)]
    unsafe fn store(p: *mut u8, bytes: Self::Bytes) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_si256(p.cast(), bytes[0]);
            _mm256_storeu_si256(p.add(32).cast(), bytes[1]);
        }
    }

    #[inline(always)]
    unsafe fn unzip(p: *const u8) -> [Self::Bytes; 2] {
        // SAFETY: as above.
        unsafe {
            let load = |i: usize| _mm256_loadu_ps(p.add(i * 32).cast());
            // Shuffles stay within halves of a register: quarters come out in the order 0, 2, 1, 3.
            let order = |words| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_castps_si256(words));
            let (a, b, c, d) = (load(0), load(1), load(2), load(3));
            [
                [
                    order(_mm256_shuffle_ps::<0b10_00_10_00>(a, b)),
                    order(_mm256_shuffle_ps::<0b10_00_10_00>(c, d)),
                ],
                [
                    order(_mm256_shuffle_ps::<0b11_01_11_01>(a, b)),
                    order(_mm256_shuffle_ps::<0b11_01_11_01>(c, d)),
                ],
            ]
        }
    }

    #[inline(always)]
    unsafe fn spread(p: *const u8) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe { four_times(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(i * 8).cast()))) })
    }

    #[inline(always)]
    unsafe fn sign_codes<const SHIFT: i32>(p: *const u8) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe { sign_codes::<SHIFT>(_mm256_loadu_si256(p.add(i * 32).cast())) })
    }

    #[inline(always)]
    unsafe fn signed<const HALF: usize>(bytes: Self::Bytes, signs: Self::Bytes, offset: u8) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe {
            let bit = _mm256_set1_epi32(if HALF == 0 { 0x0804_0201 } else { 0x8040_2010_u32 as i32 });
            // -1 where the byte is to be subtracted.
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(signs[i], bit), bit);
            let offset = _mm256_sub_epi8(_mm256_set1_epi8(offset as i8), set);
            _mm256_add_epi8(_mm256_xor_si256(bytes[i], set), offset)
        })
    }

    #[inline(always)]
    unsafe fn digit(fractions: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe {
            let x = fractions[i];
            let one = _mm256_cmpeq_epi8(_mm256_max_epu8(x, _mm256_set1_epi8(86)), x);
            let two = _mm256_cmpeq_epi8(_mm256_max_epu8(x, _mm256_set1_epi8(171_u8 as i8)), x);
            _mm256_abs_epi8(_mm256_add_epi8(one, two))
        })
    }

    #[inline(always)]
    unsafe fn triple(fractions: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_add_epi8(fractions[i], _mm256_add_epi8(fractions[i], fractions[i])) })
    }

    #[inline(always)]
    unsafe fn open(sum: Self::Ints) -> Self::Partial {
        // SAFETY: as above.
        if VNNI { sum } else { both(|_| unsafe { _mm256_setzero_si256() }) }
    }

    #[inline(always)]
    unsafe fn partial(sum: Self::Partial, w: Self::Bytes, a: *const i8) -> Self::Partial {
        // SAFETY: as above.
        unsafe {
            let a = broadcast(a);
            both(|i| {
                if VNNI {
                    _mm256_dpbusd_avx_epi32(sum[i], w[i], a)
                } else {
                    _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(w[i], a))
                }
            })
        }
    }

    #[inline(always)]
    unsafe fn settle(partial: Self::Partial) -> Self::Partial {
        // SAFETY: as above.
        unsafe { settle(partial) }
    }

    #[inline(always)]
    unsafe fn settle_ints(sum: Self::Ints) -> Self::Ints {
        // SAFETY: as above.
        unsafe { settle(sum) }
    }

    #[inline(always)]
    unsafe fn settle_floats(sum: Self::Floats) -> Self::Floats {
        // SAFETY: as above.
        unsafe {
            let [low, high] = settle([_mm256_castps_si256(sum[0]), _mm256_castps_si256(sum[1])]);
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    unsafe fn close(sum: Self::Ints, partial: Self::Partial) -> Self::Ints {
        if VNNI {
            return partial;
        }
        // SAFETY: as above.
        both(|i| unsafe { _mm256_add_epi32(sum[i], _mm256_madd_epi16(partial[i], _mm256_set1_epi16(1))) })
    }

    #[inline(always)]
    unsafe fn close_scaled(sum: Self::Ints, partial: Self::Partial, scale: Self::Scale) -> Self::Ints {
        // SAFETY: as above.
        unsafe {
            if VNNI {
                return Self::mul_add(sum, partial, scale);
            }
            both(|i| _mm256_add_epi32(sum[i], _mm256_madd_epi16(partial[i], scale[i])))
        }
    }

    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Self::Scale {
        // SAFETY: as above.
        both(|i| unsafe {
            let scales = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(i * 8).cast()));
            if VNNI { scales } else { _mm256_or_si256(scales, _mm256_slli_epi32::<16>(scales)) }
        })
    }

    #[inline(always)]
    unsafe fn pairs(p: *const u8) -> Self::Ints {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(p.add(i * 16).cast())) })
    }

    #[inline(always)]
    unsafe fn signed_pairs(p: *const u8) -> Self::Ints {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(i * 16).cast())) })
    }

    #[inline(always)]
    unsafe fn pair_nibbles(pairs: Self::Ints, plane: usize) -> Self::Ints {
        // SAFETY: as above.
        both(|i| unsafe {
            let shifted = if plane == 0 { pairs[i] } else { _mm256_srli_epi16::<4>(pairs[i]) };
            _mm256_and_si256(shifted, _mm256_set1_epi16(15))
        })
    }

    #[inline(always)]
    unsafe fn of_pairs(pairs: Self::Ints, which: usize) -> Self::Scale {
        // SAFETY: as above.
        unsafe {
            if VNNI {
                return Self::ints_of_pairs(pairs, which);
            }
            both(|i| {
                let pair = pairs[i];
                if which == 0 {
                    _mm256_blend_epi16::<0xAA>(pair, _mm256_slli_epi32::<16>(pair))
                } else {
                    _mm256_blend_epi16::<0xAA>(_mm256_srli_epi32::<16>(pair), pair)
                }
            })
        }
    }

    #[inline(always)]
    unsafe fn ints_of_pairs(pairs: Self::Ints, which: usize) -> Self::Ints {
        // SAFETY: as above.
        both(|i| unsafe {
            let first = if which == 0 { _mm256_slli_epi32::<16>(pairs[i]) } else { pairs[i] };
            _mm256_srai_epi32::<16>(first)
        })
    }

    #[inline(always)]
    unsafe fn pair_dot(sum: Self::Ints, pairs: Self::Ints, a: *const i16) -> Self::Ints {
        // SAFETY: as above.
        unsafe {
            let a = broadcast(a.cast());
            both(|i| _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs[i], a)))
        }
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self::Ints {
        // SAFETY: as above.
        both(|_| unsafe { _mm256_set1_epi32(value) })
    }

    #[inline(always)]
    unsafe fn mul_add(sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_add_epi32(sum[i], _mm256_mullo_epi32(a[i], b[i])) })
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self::Floats {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_cvtepi32_ps(ints[i]) })
    }

    #[inline(always)]
    unsafe fn powers(p: *const u8) -> Self::Floats {
        // SAFETY: as above.
        both(|i| unsafe {
            let exponents = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(i * 8).cast()));
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)));
            let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), exponents);
            let small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponents);
            _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, small))
        })
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> Self::Floats {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.add(i * 16).cast())) })
    }

    #[inline(always)]
    unsafe fn splat_float(value: f32) -> Self::Floats {
        // SAFETY: as above.
        both(|_| unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load_floats(p: *const f32) -> Self::Floats {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_loadu_ps(p.add(i * 8)) })
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_mul_ps(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_fmadd_ps(a[i], b[i], c[i]) })
    }

    #[inline(always)]
    unsafe fn fnma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: as above.
        both(|i| unsafe { _mm256_fnmadd_ps(a[i], b[i], c[i]) })
    }

    #[inline(always)]
    unsafe fn array(floats: Self::Floats) -> [f32; TILE] {
        let mut out = [0.0; TILE];
        for (i, half) in floats.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(i * 8), half) };
        }
        out
    }
}
