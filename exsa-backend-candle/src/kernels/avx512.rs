//! Products of packed weights with AVX-512 VNNI.
//!
//! A kernel multiplies `R` rows of activations with one tile, over all of `k`. Eight weight registers (16 rows × 32
//! values) stay while each activation row does eight 4-way byte dot products with broadcasts from memory, one
//! conversion, and one fused multiply-add with the scale.
//!
//! Rows are unrolled by macro with an empty `asm!` between them. Without that, the compiler hoists the broadcasts of
//! all rows above the products and spills the weight registers, which halves the speed.

use super::activations::{Activations, Panel};
use super::layout::{Kind, TILE};
use std::arch::asm;
use std::arch::x86_64::*;

/// Whether this processor has what the kernels need.
pub fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// Where a kernel reads and writes. All pointers are to the first element of the panel and tile.
struct Args {
    weights: *const u8,
    units: usize,
    q: *const i8,
    scales: *const f32,
    corrections: *const i32,
    sums32: *const i16,
    sums16: *const i16,
    /// `R` sums in progress, for kinds with blocks of 256.
    sums: *mut __m512,
    out: *mut f32,
    /// Values from one row of `out` to the next.
    out_stride: usize,
    /// Rows that are written; the rest is padding.
    rows: usize,
    /// Columns that are written.
    mask: __mmask16,
}

#[repr(C, align(64))]
struct Sums([[f32; TILE]; 16]);

/// Multiplies `panel` with the tile at `weights` into columns `column..column + columns` of `out`, `[m, stride]`.
///
/// # Safety
///
/// [`available`] is true; `weights` holds `acts.k_padded / kind.unit()` units; `acts` was quantized for `kind`; and
/// `out` points to the matrix's start, in which nobody else writes these columns of the panel's rows.
#[allow(clippy::too_many_arguments, reason = "one call site, and each is used")]
pub unsafe fn tile(
    kind: Kind,
    weights: &[u8],
    acts: &Activations,
    panel: Panel,
    out: *mut f32,
    stride: usize,
    column: usize,
    columns: usize,
) {
    debug_assert!(columns <= TILE && column + columns <= stride);
    debug_assert_eq!(weights.len(), acts.k_padded / kind.unit() * kind.unit_bytes());
    let before = panel.before * (acts.k_padded / acts.block);
    let at = |v: &[i16], width: usize| v.as_ptr().wrapping_add(before * width);
    let mut sums = Sums([[0.0; TILE]; 16]);
    let args = Args {
        weights: weights.as_ptr(),
        units: acts.k_padded / kind.unit(),
        q: acts.q[panel.before * acts.k_padded..].as_ptr(),
        scales: acts.scales[before..].as_ptr(),
        corrections: acts.corrections.as_ptr().wrapping_add(before),
        sums32: at(&acts.sums32, 8),
        sums16: at(&acts.sums16, 16),
        sums: (&raw mut sums).cast(),
        // SAFETY: the panel's rows and the columns lie in the matrix, by the caller's promise.
        out: unsafe { out.add(panel.start * stride + column) },
        out_stride: stride,
        rows: panel.rows,
        mask: ((1u32 << columns) - 1) as __mmask16,
    };
    // SAFETY: the caller promises the instructions and the lengths.
    unsafe {
        match panel.padded {
            1 => run::<1>(kind, &args),
            2 => run::<2>(kind, &args),
            3 => run::<3>(kind, &args),
            4 => run::<4>(kind, &args),
            5 => run::<5>(kind, &args),
            6 => run::<6>(kind, &args),
            7 => run::<7>(kind, &args),
            8 => run::<8>(kind, &args),
            12 => run::<12>(kind, &args),
            _ => run::<16>(kind, &args),
        }
    }
}

unsafe fn run<const R: usize>(kind: Kind, args: &Args) {
    // SAFETY: passed on from the caller.
    unsafe {
        match kind {
            Kind::Q8_0 => q8_0::<R>(args),
            Kind::Q4_0 => q45_0::<R, false>(args),
            Kind::Q5_0 => q45_0::<R, true>(args),
            Kind::Q4K => q45_k::<R, false>(args),
            Kind::Q5K => q45_k::<R, true>(args),
            Kind::Q6K => q6_k::<R>(args),
        }
    }
}

/// Repeats a block for `I` in `0..R`, unrolled, `I` a constant.
macro_rules! rows {
    ($r:expr, $i:ident, $body:block) => {
        rows!(@ $r, $i, $body; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $r:expr, $i:ident, $body:block; $($n:literal)*) => {
        $({ const $i: usize = $n; if $i < $r $body })*
    };
}

/// Keeps the compiler from moving work of one row into another.
macro_rules! fence {
    () => {
        asm!("", options(nostack, preserves_flags))
    };
}

/// Hides from the compiler that a pointer is what it was, so that what it points to is loaded again rather than kept
/// in registers that the products need.
macro_rules! reload {
    ($pointer:ident) => {
        asm!("/* {0} */", inout(reg) $pointer, options(nostack, preserves_flags))
    };
}

/// Has the compiler finish a sum before it begins another row: left alone it computes the products of many rows first
/// and runs out of registers for their results.
macro_rules! settle {
    ($sum:expr) => {
        asm!("/* {0} */", inout(zmm_reg) $sum, options(nomem, nostack, preserves_flags))
    };
}

/// Dot products of 4·`$n` values: `$sum += Σ w[$from + j] · a[j]`, bytes by fours.
macro_rules! dot {
    ($sum:expr, $a:expr, $w:ident, $from:literal, [$($j:literal)*]) => {{
        let a: *const i32 = $a;
        let mut sum = $sum;
        $( sum = _mm512_dpbusd_epi32(sum, $w[$from + $j], _mm512_set1_epi32(a.add($j).read_unaligned())); )*
        sum
    }};
}

/// Fetches the `$lines` cache lines that come 4 KiB after `$at`, where enough rows share the weights that it pays.
macro_rules! prefetch {
    ($r:expr, $at:expr, $lines:literal) => {
        if $r >= 4 {
            let at: *const u8 = $at;
            let mut line = 0;
            while line < $lines {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(4096 + line * 64).cast());
                line += 1;
            }
        }
    };
}

#[inline(always)]
unsafe fn load(p: *const u8) -> __m512i {
    // SAFETY: the caller reads within a tile.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

#[inline(always)]
unsafe fn load8(p: *const u8) -> [__m512i; 8] {
    // SAFETY: as above.
    unsafe {
        [
            load(p),
            load(p.add(64)),
            load(p.add(128)),
            load(p.add(192)),
            load(p.add(256)),
            load(p.add(320)),
            load(p.add(384)),
            load(p.add(448)),
        ]
    }
}

/// Sixteen f16 as f32.
#[inline(always)]
unsafe fn halves(p: *const u8) -> __m512 {
    // SAFETY: as above.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
}

#[inline(always)]
unsafe fn store<const R: usize>(args: &Args, sums: &[__m512; R]) {
    for (row, sum) in sums.iter().enumerate() {
        if row < args.rows {
            // SAFETY: the row and the masked columns are in the matrix.
            unsafe { _mm512_mask_storeu_ps(args.out.add(row * args.out_stride), args.mask, *sum) };
        }
    }
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q8_0<const R: usize>(args: &Args) {
    // SAFETY: lengths by the contract of `tile`.
    unsafe {
        let (mut w, mut a, mut scale, mut correction) = (args.weights, args.q, args.scales, args.corrections);
        let mut sums = [_mm512_setzero_ps(); R];
        for _ in 0..args.units {
            for second in 0..2 {
                let mut bytes = w.add(64 + second * 512);
                reload!(bytes);
                let q = load8(bytes);
                let d = halves(w.add(second * 32));
                prefetch!(R, w.add(second * 512), 8);
                rows!(R, I, {
                    fence!();
                    let start = _mm512_set1_epi32(*correction.add(I));
                    let dots = dot!(start, a.add(I * 32).cast(), q, 0, [0 1 2 3 4 5 6 7]);
                    let both = _mm512_mul_ps(d, _mm512_set1_ps(*scale.add(I)));
                    sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), both, sums[I]);
                    settle!(sums[I]);
                });
                a = a.add(R * 32);
                correction = correction.add(R);
                scale = scale.add(R);
            }
            w = w.add(1088);
        }
        store(args, &sums);
    }
}

/// Q4_0, and Q5_0 where `FIFTH`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q45_0<const R: usize, const FIFTH: bool>(args: &Args) {
    // SAFETY: lengths by the contract of `tile`.
    unsafe {
        let (mut w, mut a, mut scale, mut correction) = (args.weights, args.q, args.scales, args.corrections);
        let mut sums = [_mm512_setzero_ps(); R];
        for _ in 0..args.units {
            for second in 0..2 {
                let mut nibbles = w.add(64);
                reload!(nibbles);
                let q = nibble_plane::<FIFTH>(load8(nibbles), second, nibbles.add(512));
                let d = halves(w.add(second * 32));
                prefetch!(R, w.add(second * 320), 5);
                rows!(R, I, {
                    fence!();
                    let start = _mm512_set1_epi32(*correction.add(I));
                    let dots = dot!(start, a.add(I * 32).cast(), q, 0, [0 1 2 3 4 5 6 7]);
                    let both = _mm512_mul_ps(d, _mm512_set1_ps(*scale.add(I)));
                    sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), both, sums[I]);
                });
                a = a.add(R * 32);
                correction = correction.add(R);
                scale = scale.add(R);
            }
            w = w.add(if FIFTH { 704 } else { 576 });
        }
        store(args, &sums);
    }
}

/// Low (`plane` 0) or high nibbles of 512 bytes, with the fifth bits from `masks` where `FIFTH`.
#[inline(always)]
unsafe fn nibble_plane<const FIFTH: bool>(
    mut q: [__m512i; 8],
    plane: usize,
    masks: *const u8,
) -> [__m512i; 8] {
    // SAFETY: `masks` points to 2 × 64 bytes of the unit.
    unsafe {
        let (low, sixteen) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
        let mut j = 0;
        while j < 8 {
            let shifted = if plane == 0 { q[j] } else { _mm512_srli_epi32::<4>(q[j]) };
            q[j] = _mm512_and_si512(shifted, low);
            if FIFTH {
                let mask = masks.add(plane * 64 + j * 8).cast::<u64>().read_unaligned();
                q[j] = _mm512_mask_add_epi8(q[j], mask, q[j], sixteen);
            }
            j += 1;
        }
        q
    }
}

/// Q4_K, and Q5_K where `FIFTH`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q45_k<const R: usize, const FIFTH: bool>(args: &Args) {
    let step = if FIFTH { 576 + 128 } else { 576 };
    // SAFETY: lengths by the contract of `tile`.
    unsafe {
        let (mut w, mut a, mut scale, mut sum32) = (args.weights, args.q, args.scales, args.sums32);
        let total = args.sums;
        for _ in 0..args.units {
            let d = halves(w);
            let mut part = w.add(64);
            let mut sums = [_mm512_setzero_ps(); R];
            for _ in 0..4 {
                for plane in 0..2 {
                    reload!(part);
                    let q = nibble_plane::<FIFTH>(load8(part), plane, part.add(576));
                    let scales = _mm512_cvtepu8_epi32(_mm_loadu_si128(part.add(512 + plane * 16).cast()));
                    let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(scales), d);
                    prefetch!(R, part.add(plane * 320), 5);
                    rows!(R, I, {
                        fence!();
                        let zero = _mm512_setzero_si512();
                        let dots = dot!(zero, a.add(I * 32).cast(), q, 0, [0 1 2 3 4 5 6 7]);
                        sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, sums[I]);
                    });
                    a = a.add(R * 32);
                }
                part = part.add(step);
            }
            let dmin = halves(w.add(32));
            let mins = w.add(64 + 544);
            let min = |i: usize| _mm512_cvtepu8_epi16(_mm256_loadu_si256(mins.add(i * step).cast()));
            let m = [min(0), min(1), min(2), min(3)];
            rows!(R, I, {
                fence!();
                let s: *const i32 = sum32.add(I * 8).cast();
                let mut x = _mm512_setzero_si512();
                x = _mm512_dpwssd_epi32(x, m[0], _mm512_set1_epi32(s.read_unaligned()));
                x = _mm512_dpwssd_epi32(x, m[1], _mm512_set1_epi32(s.add(1).read_unaligned()));
                x = _mm512_dpwssd_epi32(x, m[2], _mm512_set1_epi32(s.add(2).read_unaligned()));
                x = _mm512_dpwssd_epi32(x, m[3], _mm512_set1_epi32(s.add(3).read_unaligned()));
                let value = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(x), dmin, sums[I]);
                *total.add(I) = _mm512_fmadd_ps(value, _mm512_set1_ps(*scale.add(I)), *total.add(I));
            });
            sum32 = sum32.add(R * 8);
            scale = scale.add(R);
            w = w.add(64 + 4 * step);
        }
        store(args, &*total.cast::<[__m512; R]>());
    }
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q6_k<const R: usize>(args: &Args) {
    // SAFETY: lengths by the contract of `tile`.
    unsafe {
        let (mut w, mut a, mut scale, mut sum16) = (args.weights, args.q, args.scales, args.sums16);
        let total = args.sums;
        for _ in 0..args.units {
            let d = halves(w);
            let mut part = w.add(64);
            let mut sums = [_mm512_setzero_ps(); R];
            for _ in 0..4 {
                for plane in 0..2 {
                    reload!(part);
                    let q = six_bits(load8(part), part.add(512), plane);
                    let pairs = _mm512_cvtepi8_epi16(_mm256_loadu_si256(part.add(768 + plane * 32).cast()));
                    let first = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
                    let first = _mm512_mul_ps(_mm512_cvtepi32_ps(first), d);
                    let second = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32::<16>(pairs)), d);
                    prefetch!(R, part.add(plane * 448), 7);
                    rows!(R, I, {
                        fence!();
                        let row: *const i32 = a.add(I * 32).cast();
                        let zero = _mm512_setzero_si512();
                        let dots0 = dot!(zero, row, q, 0, [0 1 2 3]);
                        let dots1 = dot!(zero, row.add(4), q, 4, [0 1 2 3]);
                        sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots0), first, sums[I]);
                        sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots1), second, sums[I]);
                    });
                    a = a.add(R * 32);
                }
                part = part.add(832);
            }
            let d32 = _mm512_mul_ps(d, _mm512_set1_ps(32.0));
            let scales = w.add(64 + 768);
            let pair = |i: usize| {
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(scales.add(i / 2 * 832 + i % 2 * 32).cast()))
            };
            let m = [pair(0), pair(1), pair(2), pair(3), pair(4), pair(5), pair(6), pair(7)];
            rows!(R, I, {
                fence!();
                let s: *const i32 = sum16.add(I * 16).cast();
                let mut x = _mm512_setzero_si512();
                let mut j = 0;
                while j < 8 {
                    x = _mm512_dpwssd_epi32(x, m[j], _mm512_set1_epi32(s.add(j).read_unaligned()));
                    j += 1;
                }
                let value = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(x), d32, sums[I]);
                *total.add(I) = _mm512_fmadd_ps(value, _mm512_set1_ps(*scale.add(I)), *total.add(I));
            });
            sum16 = sum16.add(R * 16);
            scale = scale.add(R);
            w = w.add(3392);
        }
        store(args, &*total.cast::<[__m512; R]>());
    }
}

/// Six-bit values of one plane: nibbles merged with bit pairs from the 256 bytes at `high`.
#[inline(always)]
unsafe fn six_bits(mut q: [__m512i; 8], high: *const u8, plane: usize) -> [__m512i; 8] {
    // SAFETY: `high` points to 256 bytes of the unit.
    unsafe {
        let (low, pair) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
        let mut j = 0;
        while j < 4 {
            let h = load(high.add(j * 64));
            // The pair for groups 0..4 and the one for groups 4..8, moved to bits 4 and 5.
            let (h0, h1) = if plane == 0 {
                (_mm512_slli_epi32::<4>(h), _mm512_slli_epi32::<2>(h))
            } else {
                (h, _mm512_srli_epi32::<2>(h))
            };
            let shift = |x| if plane == 0 { x } else { _mm512_srli_epi32::<4>(x) };
            // (nibble & 15) | (pair & 0x30)
            q[j] = _mm512_ternarylogic_epi32::<0xF8>(_mm512_and_si512(shift(q[j]), low), h0, pair);
            q[j + 4] = _mm512_ternarylogic_epi32::<0xF8>(_mm512_and_si512(shift(q[j + 4]), low), h1, pair);
            j += 1;
        }
        q
    }
}
