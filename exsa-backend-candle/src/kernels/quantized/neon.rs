//! Packed products on aarch64, with the dot products of the DotProd extension where the processor has it.

use super::args::Args;
use super::lanes::{Lanes, tile};
use super::layout::{PackedType, TILE};
use std::arch::aarch64::*;
use std::arch::asm;

/// Whether this processor has the DotProd extension.
pub(super) fn has_dotprod() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Multiplies the panel with the tile.
///
/// # Safety
///
/// `args` were made for weights of `kind`.
pub(super) unsafe fn multiply(kind: PackedType, args: &Args) {
    // SAFETY: passed on; NEON is part of the architecture.
    unsafe { tile::<Neon<false>>(kind, args) }
}

/// The same with the DotProd extension.
///
/// # Safety
///
/// As of [`multiply`], and the processor has DotProd.
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn multiply_dotprod(kind: PackedType, args: &Args) {
    // SAFETY: passed on.
    unsafe { tile::<Neon<true>>(kind, args) }
}

/// Four registers of four lanes each.
struct Neon<const DOT: bool>;

type Four<T> = [T; 4];

/// Calls `f` for all quarters.
#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> Four<T> {
    [f(0), f(1), f(2), f(3)]
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
    const SIGNED: bool = true;

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
    unsafe fn dot(sum: Self::Ints, w: Self::Bytes, a: *const i8) -> Self::Ints {
        // SAFETY: as above.
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(a.cast::<i32>().read_unaligned()));
            each(|i| dot::<DOT>(sum[i], vreinterpretq_s8_u8(w[i]), a))
        }
    }

    #[inline(always)]
    unsafe fn dot_full(sum: Self::Ints, w: Self::Bytes, a: *const i8) -> Self::Ints {
        // SAFETY: as above.
        unsafe { Self::dot(sum, each(|i| veorq_u8(w[i], vdupq_n_u8(128))), a) }
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
    unsafe fn ints(p: &[i32; TILE]) -> Self::Ints {
        // SAFETY: as above.
        each(|i| unsafe { vld1q_s32(p.as_ptr().add(i * 4)) })
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self::Floats {
        // SAFETY: as above.
        each(|i| unsafe { vcvtq_f32_s32(ints[i]) })
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
