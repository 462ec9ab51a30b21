//! Packed products on aarch64, with the dot products of the DotProd extension where the processor has it.

use super::args::Args;
use super::lanes::{Lanes, multiply};
use super::layout::{PackedType, TILE};
use std::arch::aarch64::*;
use std::arch::asm;

/// Whether this processor has the DotProd extension.
pub(super) fn has_dotprod() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

multiply! {
    /// Multiplies the panel with the tile; NEON is part of the architecture.
    ///
    /// # Safety
    ///
    /// `args` were made for weights of `kind`.
    pub(super) multiply, Neon<false>
}

multiply! {
    /// The same with the DotProd extension.
    ///
    /// # Safety
    ///
    /// As of [`multiply()`], and the processor has DotProd.
    pub(super) multiply_dotprod, Neon<true>, "dotprod"
}

/// Four registers of four lanes each.
struct Neon<const DOT: bool>;

type Four<T> = [T; 4];

/// Calls `f` for all quarters.
#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> Four<T> {
    [f(0), f(1), f(2), f(3)]
}

/// The lowest byte of each lane, of which the others are zero, four times.
///
/// # Safety
///
/// NEON, which is part of the architecture.
#[inline(always)]
unsafe fn four_times(words: uint32x4_t) -> uint8x16_t {
    // SAFETY: as promised.
    unsafe { vreinterpretq_u8_u32(vmulq_u32(words, vdupq_n_u32(0x0101_0101))) }
}

/// Adds to each lane the dot product of four signed bytes.
///
/// # Safety
///
/// The processor has DotProd where `DOT`.
#[inline(always)]
unsafe fn dot<const DOT: bool>(sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is there where `DOT` says so.
    unsafe {
        if DOT {
            let mut sum = sum;
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {w:v}.16b, {a:v}.16b",
                sum = inout(vreg) sum, w = in(vreg) w, a = in(vreg) a,
                options(pure, nomem, nostack, preserves_flags),
            );
            sum
        } else {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)));
            let high = vpaddlq_s16(vmull_high_s8(w, a));
            vaddq_s32(sum, vpaddq_s32(low, high))
        }
    }
}

// SAFETY (of every block below): the instructions are there by the contract of `Lanes`, and so are the bytes.
impl<const DOT: bool> Lanes for Neon<DOT> {
    type Bytes = Four<uint8x16_t>;
    type Ints = Four<int32x4_t>;
    type Floats = Four<float32x4_t>;
    type Partial = Four<int32x4_t>;
    type Scale = Four<int32x4_t>;
    const SIGNED: bool = true;
    const PARTIAL_MAX: usize = usize::MAX;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe { vld1q_u8(p.add(i * 16)) })
    }

    #[inline(always)]
    unsafe fn nibbles(bytes: Self::Bytes, plane: usize) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe {
            if plane == 0 { vandq_u8(bytes[i], vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(bytes[i]) }
        })
    }

    #[inline(always)]
    unsafe fn add_fifth(bytes: Self::Bytes, mask: u64) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe {
            let mask =
                vcombine_u8(vdup_n_u8((mask >> (i * 16)) as u8), vdup_n_u8((mask >> (i * 16 + 8)) as u8));
            let bit = vcreate_u8(0x8040_2010_0804_0201);
            let set = vtstq_u8(mask, vcombine_u8(bit, bit));
            vorrq_u8(bytes[i], vandq_u8(set, vdupq_n_u8(16)))
        })
    }

    #[inline(always)]
    unsafe fn add_pairs(bytes: Self::Bytes, high: Self::Bytes, shift: usize) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe {
            let moved = match shift {
                0 => vshlq_n_u8::<4>(high[i]),
                2 => vshlq_n_u8::<2>(high[i]),
                4 => high[i],
                _ => vshrq_n_u8::<2>(high[i]),
            };
            vorrq_u8(bytes[i], vandq_u8(moved, vdupq_n_u8(0x30)))
        })
    }

    #[inline(always)]
    unsafe fn dot_full(sum: Self::Ints, w: Self::Bytes, a: *const i8) -> Self::Ints {
        // SAFETY: as above.
        unsafe { Self::partial(sum, each(|i| veorq_u8(w[i], vdupq_n_u8(128))), a) }
    }

    #[inline(always)]
    unsafe fn field<const RIGHT: i32, const LEFT: i32>(bytes: Self::Bytes, mask: u8) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe { vandq_u8(vshlq_u8(bytes[i], vdupq_n_s8((LEFT - RIGHT) as i8)), vdupq_n_u8(mask)) })
    }

    #[inline(always)]
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe { vorrq_u8(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], bytes: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above; the table has 16 bytes.
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            each(|i| vqtbl1q_u8(table, bytes[i]))
        }
    }

    #[inline(always)]
    unsafe fn store(p: *mut u8, bytes: Self::Bytes) {
        for (i, quarter) in bytes.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { vst1q_u8(p.add(i * 16), quarter) };
        }
    }

    #[inline(always)]
    unsafe fn unzip(p: *const u8) -> [Self::Bytes; 2] {
        // SAFETY: as above.
        let words = |i: usize| unsafe { vreinterpretq_u32_u8(vld1q_u8(p.add(i * 16))) };
        // SAFETY: as above.
        unsafe {
            [
                each(|i| vreinterpretq_u8_u32(vuzp1q_u32(words(i * 2), words(i * 2 + 1)))),
                each(|i| vreinterpretq_u8_u32(vuzp2q_u32(words(i * 2), words(i * 2 + 1)))),
            ]
        }
    }

    #[inline(always)]
    unsafe fn spread(p: *const u8) -> Self::Bytes {
        // SAFETY: as above.
        unsafe {
            let bytes = Self::scales(p);
            each(|i| four_times(vreinterpretq_u32_s32(bytes[i])))
        }
    }

    #[inline(always)]
    unsafe fn sign_codes<const SHIFT: i32>(p: *const u8) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe {
            let words = vreinterpretq_u32_u8(vld1q_u8(p.add(i * 16)));
            let codes = vandq_u32(vshlq_u32(words, vdupq_n_s32(-SHIFT)), vdupq_n_u32(127));
            // Bit 0 of the number of set bits, which is below 8, becomes bit 7.
            let count = vreinterpretq_u32_u8(vcntq_u8(vreinterpretq_u8_u32(codes)));
            let parity = vshlq_n_u32::<7>(vandq_u32(count, vdupq_n_u32(1)));
            four_times(vorrq_u32(codes, parity))
        })
    }

    #[inline(always)]
    unsafe fn signed<const HALF: usize>(bytes: Self::Bytes, signs: Self::Bytes, offset: u8) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe {
            let bit = vreinterpretq_u8_u32(vdupq_n_u32(if HALF == 0 { 0x0804_0201 } else { 0x8040_2010 }));
            let offset = vdupq_n_u8(offset);
            vbslq_u8(vtstq_u8(signs[i], bit), vsubq_u8(offset, bytes[i]), vaddq_u8(offset, bytes[i]))
        })
    }

    #[inline(always)]
    unsafe fn digit(fractions: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe {
            // All bits of a comparison that holds are -1.
            let one = vcgeq_u8(fractions[i], vdupq_n_u8(86));
            let two = vcgeq_u8(fractions[i], vdupq_n_u8(171));
            vsubq_u8(vsubq_u8(vdupq_n_u8(0), one), two)
        })
    }

    #[inline(always)]
    unsafe fn triple(fractions: Self::Bytes) -> Self::Bytes {
        // SAFETY: as above.
        each(|i| unsafe { vmulq_u8(fractions[i], vdupq_n_u8(3)) })
    }

    #[inline(always)]
    unsafe fn open(sum: Self::Ints) -> Self::Partial {
        sum
    }

    #[inline(always)]
    unsafe fn partial(sum: Self::Partial, w: Self::Bytes, a: *const i8) -> Self::Partial {
        // SAFETY: as above.
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(a.cast::<i32>().read_unaligned()));
            each(|i| dot::<DOT>(sum[i], vreinterpretq_s8_u8(w[i]), a))
        }
    }

    #[inline(always)]
    unsafe fn close(_: Self::Ints, partial: Self::Partial) -> Self::Ints {
        partial
    }

    #[inline(always)]
    unsafe fn close_scaled(sum: Self::Ints, partial: Self::Partial, scale: Self::Scale) -> Self::Ints {
        // SAFETY: as above.
        unsafe { Self::mul_add(sum, partial, scale) }
    }

    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Self::Scale {
        // SAFETY: as above.
        each(|i| unsafe {
            let four = vcreate_u8(u64::from(p.add(i * 4).cast::<u32>().read_unaligned()));
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four))))
        })
    }

    #[inline(always)]
    unsafe fn pairs(p: *const u8) -> Self::Ints {
        // SAFETY: as above.
        each(|i| unsafe { vreinterpretq_s32_u16(vmovl_u8(vld1_u8(p.add(i * 8)))) })
    }

    #[inline(always)]
    unsafe fn signed_pairs(p: *const u8) -> Self::Ints {
        // SAFETY: as above.
        each(|i| unsafe { vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p.add(i * 8).cast()))) })
    }

    #[inline(always)]
    unsafe fn pair_nibbles(pairs: Self::Ints, plane: usize) -> Self::Ints {
        // SAFETY: as above.
        each(|i| unsafe {
            let shifted = if plane == 0 { pairs[i] } else { vshrq_n_s32::<4>(pairs[i]) };
            vandq_s32(shifted, vdupq_n_s32(0x000f_000f))
        })
    }

    #[inline(always)]
    unsafe fn of_pairs(pairs: Self::Ints, which: usize) -> Self::Scale {
        // SAFETY: as above.
        unsafe { Self::ints_of_pairs(pairs, which) }
    }

    #[inline(always)]
    unsafe fn ints_of_pairs(pairs: Self::Ints, which: usize) -> Self::Ints {
        // SAFETY: as above.
        each(|i| unsafe {
            let first = if which == 0 { vshlq_n_s32::<16>(pairs[i]) } else { pairs[i] };
            vshrq_n_s32::<16>(first)
        })
    }

    #[inline(always)]
    unsafe fn pair_dot(sum: Self::Ints, pairs: Self::Ints, a: *const i16) -> Self::Ints {
        // SAFETY: as above.
        unsafe {
            let a = vreinterpretq_s16_s32(vdupq_n_s32(a.cast::<i32>().read_unaligned()));
            each(|i| {
                let pair = vreinterpretq_s16_s32(pairs[i]);
                let low = vmull_s16(vget_low_s16(pair), vget_low_s16(a));
                vaddq_s32(sum[i], vpaddq_s32(low, vmull_high_s16(pair, a)))
            })
        }
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self::Ints {
        // SAFETY: as above.
        each(|_| unsafe { vdupq_n_s32(value) })
    }

    #[inline(always)]
    unsafe fn mul_add(sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: as above.
        each(|i| unsafe { vmlaq_s32(sum[i], a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self::Floats {
        // SAFETY: as above.
        each(|i| unsafe { vcvtq_f32_s32(ints[i]) })
    }

    #[inline(always)]
    unsafe fn powers(p: *const u8) -> Self::Floats {
        // SAFETY: as above.
        unsafe {
            let exponents = Self::scales(p);
            each(|i| {
                let normal = vshlq_n_s32::<23>(vsubq_s32(exponents[i], vdupq_n_s32(1)));
                let subnormal = vshlq_s32(vdupq_n_s32(0x0020_0000), exponents[i]);
                let small = vcltq_s32(exponents[i], vdupq_n_s32(2));
                vreinterpretq_f32_s32(vbslq_s32(small, subnormal, normal))
            })
        }
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> Self::Floats {
        // SAFETY: as above.
        each(|i| unsafe {
            let four = vld1_u16(p.add(i * 8).cast());
            let floats: float32x4_t;
            asm!(
                "fcvtl {floats:v}.4s, {four:v}.4h",
                floats = out(vreg) floats, four = in(vreg) four,
                options(pure, nomem, nostack, preserves_flags),
            );
            floats
        })
    }

    #[inline(always)]
    unsafe fn splat_float(value: f32) -> Self::Floats {
        // SAFETY: as above.
        each(|_| unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load_floats(p: *const f32) -> Self::Floats {
        // SAFETY: as above.
        each(|i| unsafe { vld1q_f32(p.add(i * 4)) })
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: as above.
        each(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: as above.
        each(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn fnma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: as above.
        each(|i| unsafe { vfmsq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn array(floats: Self::Floats) -> [f32; TILE] {
        let mut out = [0.0; TILE];
        for (i, quarter) in floats.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { vst1q_f32(out.as_mut_ptr().add(i * 4), quarter) };
        }
        out
    }
}
