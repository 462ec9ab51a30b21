//! Products of packed weights with AVX-512 VNNI.
//!
//! A kernel multiplies `R` rows of activations with one tile, over all of `k`. Eight weight registers (16
//! rows × 32 values) stay while each activation row does eight 4-way byte dot products with broadcasts from
//! memory, one conversion, and one fused multiply-add with the scale.
//!
//! Rows are unrolled by macro with an empty `asm!` between them. Without that, the compiler hoists the
//! broadcasts of all rows above the products and spills the weight registers, which halves the speed.

use super::avx512_lanes;
use crate::kernels::memory::prefetch::prefetch_stream;
use crate::kernels::quantized::args::Args;
use crate::kernels::quantized::layout::*;
use std::arch::asm;
use std::arch::x86_64::*;

/// Whether this processor has what the kernels need.
pub fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// A loop of dot products from registers, to compare kernels with. Returns the multiplications and additions
/// that it did.
///
/// # Safety
///
/// [`available`] is true.
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn peak() -> u64 {
    const ROUNDS: u64 = 30_000;
    let mut sums = [_mm512_set1_epi32(1); 12];
    let factor = _mm512_set1_epi8(std::hint::black_box(1));
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, factor, factor);
        }
        for sum in &mut sums {
            // SAFETY: no instruction; it keeps the compiler from taking rounds together.
            unsafe { asm!("/* {0} */", inout(zmm_reg) * sum, options(nomem, nostack, preserves_flags)) };
        }
    }
    std::hint::black_box(sums);
    ROUNDS * 12 * 128
}

/// Sums in progress that do not fit the registers.
#[repr(C, align(64))]
struct Sums([[f32; TILE]; 16]);

/// A pointer to sums that the compiler must keep in memory: registers are for what is used more often.
#[inline(always)]
fn hidden(sums: &mut Sums) -> *mut __m512 {
    let mut pointer: *mut __m512 = sums.0.as_mut_ptr().cast();
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) pointer, options(nostack, preserves_flags)) };
    pointer
}

/// Multiplies the panel with the tile.
///
/// # Safety
///
/// The processor has what [`available`] asks for, and `args` were made for weights of `kind`.
pub(in crate::kernels::quantized) unsafe fn multiply(kind: PackedType, args: &Args) {
    // SAFETY: the instructions and the arguments are the caller's promise; the panel has that many padded
    // rows.
    unsafe {
        if !has_kernel(kind) {
            return avx512_lanes::multiply(kind, args);
        }
        match args.padded {
            1 => run::<1>(kind, args),
            2 => run::<2>(kind, args),
            3 => run::<3>(kind, args),
            4 => run::<4>(kind, args),
            5 => run::<5>(kind, args),
            6 => run::<6>(kind, args),
            7 => run::<7>(kind, args),
            8 => run::<8>(kind, args),
            12 => run::<12>(kind, args),
            _ => run::<16>(kind, args),
        }
    }
}

/// Multiplies a panel of `R` padded rows with the tile.
///
/// # Safety
///
/// As of [`multiply`], for panels of `R` padded rows.
unsafe fn run<const R: usize>(kind: PackedType, args: &Args) {
    // SAFETY: passed on from the caller.
    unsafe {
        match kind {
            PackedType::Q8_0 => q8_0::<R>(args),
            PackedType::Q4_0 => q45_0::<R, false>(args),
            PackedType::Q5_0 => q45_0::<R, true>(args),
            PackedType::Q4K => q4_k::<R>(args),
            PackedType::Q5K => q5_k::<R>(args),
            PackedType::Q6K => q6_k::<R>(args),
            _ => debug_assert!(has_kernel(kind)),
        }
    }
}

/// Whether weights of `kind` have a kernel here; the others are multiplied by [`avx512_lanes`].
fn has_kernel(kind: PackedType) -> bool {
    use PackedType::*;
    matches!(kind, Q8_0 | Q4_0 | Q5_0 | Q4K | Q5K | Q6K)
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

/// Hides from the compiler that a pointer is what it was, so that what it points to is loaded again rather
/// than kept in registers that the products need.
macro_rules! reload {
    ($pointer:ident) => {
        asm!("/* {0} */", inout(reg) $pointer, options(nostack, preserves_flags))
    };
}

/// Has the compiler finish a sum before it begins another row: left alone it computes the products of many
/// rows first and runs out of registers for their results.
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

/// Adds to `$sum` the dot products of pairs of 16 bits with the pair at `$pair`. The compiler would take the
/// intrinsic apart into three instructions.
macro_rules! pair_dot {
    ($sum:ident, $m:expr, $pair:expr) => {
        asm!(
            "vpdpwssd {0}, {1}, dword ptr [{2}]{{1to16}}",
            inout(zmm_reg) $sum, in(zmm_reg) $m, in(reg) $pair,
            options(pure, readonly, nostack, preserves_flags),
        )
    };
}

/// 64 bytes.
///
/// # Safety
///
/// The processor has AVX-512, and 64 bytes are at `p`.
#[inline(always)]
pub(super) unsafe fn load(p: *const u8) -> __m512i {
    // SAFETY: the bytes are there, by the caller's promise.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

/// 512 bytes.
///
/// # Safety
///
/// The processor has AVX-512, and 512 bytes are at `p`.
#[inline(always)]
pub(super) unsafe fn load8(p: *const u8) -> [__m512i; 8] {
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
///
/// # Safety
///
/// The processor has AVX-512, and 32 bytes are at `p`.
#[inline(always)]
pub(super) unsafe fn halves(p: *const u8) -> __m512 {
    // SAFETY: as above.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
}

/// Writes the rows of the panel that are no padding.
///
/// # Safety
///
/// The processor has AVX-512, and the contract of [`Args`] holds.
#[inline(always)]
unsafe fn store<const R: usize>(args: &Args, sums: &[__m512; R]) {
    let mask = ((1u32 << args.columns) - 1) as __mmask16;
    for (row, sum) in sums.iter().enumerate() {
        if row < args.rows {
            // SAFETY: the row and the masked columns are in the output, by the contract of `Args`.
            unsafe { _mm512_mask_storeu_ps(args.out.add(row * args.out_stride), mask, *sum) };
        }
    }
}

/// Q8_0.
///
/// # Safety
///
/// As of [`run`], for Q8_0.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q8_0<const R: usize>(args: &Args) {
    // SAFETY: the instructions by the caller's promise; lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a, mut scale, mut zero_point) = (args.weights, args.q, args.scales, args.zero_points);
        let mut sums = [_mm512_setzero_ps(); R];
        for _ in 0..args.super_blocks {
            for second in 0..2 {
                let mut bytes = w.add(HEADER + second * QUANTS);
                reload!(bytes);
                let q = load8(bytes);
                let d = halves(w.add(second * 32));
                prefetch_stream::<8>(w.add(second * 512));
                rows!(R, I, {
                    fence!();
                    let start = _mm512_set1_epi32(*zero_point.add(I));
                    let dots = dot!(start, a.add(I * 64).cast(), q, 0, [0 1 2 3 4 5 6 7]);
                    let both = _mm512_mul_ps(d, _mm512_set1_ps(*scale.add(I)));
                    sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), both, sums[I]);
                    settle!(sums[I]);
                });
                a = a.add(32);
                zero_point = zero_point.add(R);
                scale = scale.add(R);
            }
            a = a.add((R - 1) * 64);
            w = w.add(Q8_0_BYTES);
        }
        store(args, &sums);
    }
}

/// Q4_0, and Q5_0 where `FIFTH`.
///
/// # Safety
///
/// As of [`run`], for Q4_0 or Q5_0.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q45_0<const R: usize, const FIFTH: bool>(args: &Args) {
    // SAFETY: the instructions by the caller's promise; lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a, mut scale, mut zero_point) = (args.weights, args.q, args.scales, args.zero_points);
        let mut sums = [_mm512_setzero_ps(); R];
        for _ in 0..args.super_blocks {
            for second in 0..2 {
                let mut nibbles = w.add(HEADER);
                reload!(nibbles);
                let q = nibble_plane::<FIFTH>(load8(nibbles), second, nibbles.add(Q5_0_FIFTHS - HEADER));
                let d = halves(w.add(second * 32));
                prefetch_stream::<5>(w.add(second * 320));
                rows!(R, I, {
                    fence!();
                    let start = _mm512_set1_epi32(*zero_point.add(I));
                    let dots = dot!(start, a.add(I * 64).cast(), q, 0, [0 1 2 3 4 5 6 7]);
                    let both = _mm512_mul_ps(d, _mm512_set1_ps(*scale.add(I)));
                    sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), both, sums[I]);
                });
                a = a.add(32);
                zero_point = zero_point.add(R);
                scale = scale.add(R);
            }
            a = a.add((R - 1) * 64);
            w = w.add(if FIFTH { Q5_0_BYTES } else { Q4_0_BYTES });
        }
        store(args, &sums);
    }
}

/// Low (`plane` 0) or high nibbles of 512 bytes, with the fifth bits from `masks` where `FIFTH`.
///
/// # Safety
///
/// The processor has AVX-512 with BW; 128 bytes are at `masks` where `FIFTH`.
#[inline(always)]
pub(super) unsafe fn nibble_plane<const FIFTH: bool>(
    mut q: [__m512i; 8],
    plane: usize,
    masks: *const u8,
) -> [__m512i; 8] {
    // SAFETY: the masks of both planes are there, by the caller's promise.
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

/// Q4_K.
///
/// # Safety
///
/// As of [`run`], for Q4_K.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q4_k<const R: usize>(args: &Args) {
    // SAFETY: the instructions by the caller's promise; lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a, mut scale, mut sum32) = (args.weights, args.q, args.scales, args.sums32);
        let (mut total, mut first) = (Sums([[0.0; TILE]; 16]), Sums([[0.0; TILE]; 16]));
        let (total, first) = (hidden(&mut total), hidden(&mut first));
        for _ in 0..args.super_blocks {
            let mut part = w.add(HEADER);
            let mut sums = [_mm512_setzero_ps(); R];
            for half in 0..2 {
                // Sums of half a block are integers below 2^24: exact, in whatever order.
                for _ in 0..2 {
                    for plane in 0..2 {
                        reload!(part);
                        let q = nibble_plane::<false>(load8(part), plane, part);
                        let scales =
                            _mm512_cvtepu8_epi32(_mm_loadu_si128(part.add(K_SCALES + plane * TILE).cast()));
                        let scales = _mm512_cvtepi32_ps(scales);
                        prefetch_stream::<5>(part.add(plane * 320));
                        rows!(R, I, {
                            fence!();
                            let zero = _mm512_setzero_si512();
                            let dots = dot!(zero, a.add(I * 64).cast(), q, 0, [0 1 2 3 4 5 6 7]);
                            sums[I] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, sums[I]);
                        });
                        a = a.add(32);
                    }
                    a = a.add((R - 1) * 64);
                    part = part.add(Q4K_PART);
                }
                if half == 0 {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *first.add(i) = *sum;
                        *sum = _mm512_setzero_ps();
                    }
                }
            }
            let (d, dmin) = (halves(w), halves(w.add(32)));
            let m = mins::<Q4K_PART>(w.add(HEADER + K_MINS));
            rows!(R, I, {
                fence!();
                let value = _mm512_mul_ps(_mm512_add_ps(*first.add(I), sums[I]), d);
                let value = take_mins(value, sum32.add(I * 8), m, dmin);
                *total.add(I) = _mm512_fmadd_ps(value, _mm512_set1_ps(*scale.add(I)), *total.add(I));
            });
            sum32 = sum32.add(R * 8);
            scale = scale.add(R);
            w = w.add(Q4K_BYTES);
        }
        store(args, &*total.cast::<[__m512; R]>());
    }
}

/// The mins of a block, as pairs of 16 bits, from four places `STEP` bytes apart.
///
/// # Safety
///
/// The processor has AVX-512 with BW, and 32 bytes are at each of the places.
#[inline(always)]
pub(super) unsafe fn mins<const STEP: usize>(p: *const u8) -> [__m512i; 4] {
    // SAFETY: the bytes are there, by the caller's promise.
    let min = |i: usize| unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(p.add(i * STEP).cast())) };
    [min(0), min(1), min(2), min(3)]
}

/// Takes off `value` the mins of a block by the sums of eight times 32 activations.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI, and eight sums are at `sums`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn take_mins(value: __m512, sums: *const i16, m: [__m512i; 4], dmin: __m512) -> __m512 {
    // SAFETY: the caller says that eight sums are there.
    unsafe {
        let mut x = _mm512_setzero_si512();
        for (i, m) in m.into_iter().enumerate() {
            pair_dot!(x, m, sums.add(i * 2));
        }
        _mm512_fnmadd_ps(_mm512_cvtepi32_ps(x), dmin, value)
    }
}

/// Q5_K.
///
/// # Safety
///
/// As of [`run`], for Q5_K.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q5_k<const R: usize>(args: &Args) {
    // SAFETY: the instructions by the caller's promise; lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a, mut scale, mut sum32) = (args.weights, args.q, args.scales, args.sums32);
        let mut total = Sums([[0.0; TILE]; 16]);
        let total = hidden(&mut total);
        for _ in 0..args.super_blocks {
            let mut part = w.add(HEADER);
            let mut sums = [_mm512_setzero_si512(); R];
            for _ in 0..4 {
                for plane in 0..2 {
                    reload!(part);
                    let q = nibble_plane::<true>(load8(part), plane, part.add(Q5K_FIFTHS));
                    let scales =
                        _mm512_cvtepu8_epi32(_mm_loadu_si128(part.add(K_SCALES + plane * TILE).cast()));
                    prefetch_stream::<6>(part.add(plane * 384));
                    rows!(R, I, {
                        fence!();
                        let zero = _mm512_setzero_si512();
                        let dots = dot!(zero, a.add(I * 64).cast(), q, 0, [0 1 2 3 4 5 6 7]);
                        sums[I] = _mm512_add_epi32(sums[I], _mm512_mullo_epi32(dots, scales));
                    });
                    a = a.add(32);
                }
                a = a.add((R - 1) * 64);
                part = part.add(Q5K_PART);
            }
            let (d, dmin) = (halves(w), halves(w.add(32)));
            let m = mins::<Q5K_PART>(w.add(HEADER + K_MINS));
            rows!(R, I, {
                fence!();
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[I]), d);
                let value = take_mins(value, sum32.add(I * 8), m, dmin);
                *total.add(I) = _mm512_fmadd_ps(value, _mm512_set1_ps(*scale.add(I)), *total.add(I));
            });
            sum32 = sum32.add(R * 8);
            scale = scale.add(R);
            w = w.add(Q5K_BYTES);
        }
        store(args, &*total.cast::<[__m512; R]>());
    }
}

/// Q6_K.
///
/// # Safety
///
/// As of [`run`], for Q6_K.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn q6_k<const R: usize>(args: &Args) {
    // SAFETY: the instructions by the caller's promise; lengths by the contract of `Args`.
    unsafe {
        let (mut w, mut a, mut scale, mut sum16) = (args.weights, args.q, args.scales, args.sums16);
        let mut total = Sums([[0.0; TILE]; 16]);
        let total = hidden(&mut total);
        for _ in 0..args.super_blocks {
            let mut part = w.add(HEADER);
            let mut sums = [_mm512_setzero_si512(); R];
            for _ in 0..4 {
                for plane in 0..2 {
                    reload!(part);
                    let q = six_bits(load8(part), part.add(Q6K_HIGH), plane);
                    let pairs =
                        _mm512_cvtepi8_epi16(_mm256_loadu_si256(part.add(Q6K_SCALES + plane * 32).cast()));
                    let first = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
                    let second = _mm512_srai_epi32::<16>(pairs);
                    prefetch_stream::<7>(part.add(plane * 448));
                    rows!(R, I, {
                        fence!();
                        let row: *const i32 = a.add(I * 64).cast();
                        let zero = _mm512_setzero_si512();
                        let dots0 = dot!(zero, row, q, 0, [0 1 2 3]);
                        let dots1 = dot!(zero, row.add(4), q, 4, [0 1 2 3]);
                        let scaled = _mm512_mullo_epi32(dots0, first);
                        sums[I] = _mm512_add_epi32(sums[I], scaled);
                        sums[I] = _mm512_add_epi32(sums[I], _mm512_mullo_epi32(dots1, second));
                    });
                    a = a.add(32);
                }
                a = a.add((R - 1) * 64);
                part = part.add(Q6K_PART);
            }
            let d = halves(w);
            let scales = w.add(HEADER + Q6K_SCALES);
            let pair = |i: usize| {
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(scales.add(i / 2 * Q6K_PART + i % 2 * 32).cast()))
            };
            let m = [pair(0), pair(1), pair(2), pair(3), pair(4), pair(5), pair(6), pair(7)];
            rows!(R, I, {
                fence!();
                // Quants are 32 too great.
                let mut x = _mm512_setzero_si512();
                for (j, m) in m.into_iter().enumerate() {
                    pair_dot!(x, m, sum16.add(I * 16 + j * 2));
                }
                let exact = _mm512_sub_epi32(sums[I], _mm512_slli_epi32::<5>(x));
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), d);
                *total.add(I) = _mm512_fmadd_ps(value, _mm512_set1_ps(*scale.add(I)), *total.add(I));
            });
            sum16 = sum16.add(R * 16);
            scale = scale.add(R);
            w = w.add(Q6K_BYTES);
        }
        store(args, &*total.cast::<[__m512; R]>());
    }
}

/// Six-bit values of one plane: nibbles merged with bit pairs from the 256 bytes at `high`.
///
/// # Safety
///
/// The processor has AVX-512, and 256 bytes are at `high`.
#[inline(always)]
pub(super) unsafe fn six_bits(mut q: [__m512i; 8], high: *const u8, plane: usize) -> [__m512i; 8] {
    // SAFETY: 256 bytes are at `high`, by the caller's promise.
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
