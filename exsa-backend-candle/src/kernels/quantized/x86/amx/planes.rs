//! Tiles of the kinds whose scales are integers within blocks of 256.
//!
//! Weights times their integer scales are exact in 16 bits, which is two planes of bytes; the products of
//! both planes are summed over 256 values in the tiles, in exact integers, so that nothing has to be scaled
//! in between. What follows is the arithmetic of the other kernels, and so are the results, to the bit.

use super::job::Job;
use crate::kernels::memory::prefetch::prefetch_stream;
use crate::kernels::quantized::activations::{Activations, Panel};
use crate::kernels::quantized::layout::{
    HEADER, K_MINS, K_SCALES, PackedType, Q4K_PART, Q5K_FIFTHS, Q5K_PART, Q6K_HIGH, Q6K_PART, Q6K_SCALES,
    TILE,
};
use crate::kernels::quantized::scratch::{Scratch, Sums};
use crate::kernels::quantized::x86::avx512::{halves, load, load8, mins, nibble_plane, six_bits, take_mins};
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

/// Whether weights are of such a kind.
pub(super) fn supports(kind: PackedType) -> bool {
    matches!(kind, PackedType::Q4K | PackedType::Q5K | PackedType::Q6K)
}

/// Super-blocks that are unpacked at a time.
const CHUNK: usize = 2;

/// A super-block, unpacked: `d`, `dmin` and the mins, then for each 64 values a high and a low plane of 1024
/// bytes.
const HEAD: usize = 64 + 64 + 256;
const UNPACKED: usize = HEAD + 4 * 2048;

/// Bytes of what is unpacked of a tile.
pub(super) const CHUNK_BYTES: usize = CHUNK * UNPACKED;

/// Adds to the sums the products of `panels`, each of 16 rows, with a group of tiles; two panels go by at a
/// time.
///
/// # Safety
///
/// As of [`super::multiply`]; the registers are wide; and `scratch` has room.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply(job: &Job<'_>, panels: &[Panel], tiles: Range<usize>, scratch: &mut Scratch) {
    let super_block_bytes = job.kind.super_block_bytes();
    let rows = panels.len() * TILE;
    let unpacked = scratch.unpacked.as_mut_ptr().cast::<u8>();
    let sums = scratch.sums.as_mut_ptr().cast::<f32>();
    let ints = &mut *scratch.ints;
    // SAFETY: `scratch` has room for a group of tiles; instructions, weights and panels by this function's
    // contract.
    unsafe {
        for first in (0..job.super_blocks).step_by(CHUNK) {
            let super_blocks = CHUNK.min(job.super_blocks - first);
            for (i, tile) in tiles.clone().enumerate() {
                for super_block in 0..super_blocks {
                    let packed = &job.weights
                        [(tile * job.super_blocks + first + super_block) * super_block_bytes..]
                        [..super_block_bytes];
                    unpack(job.kind, packed.as_ptr(), unpacked.add((i * CHUNK + super_block) * UNPACKED));
                }
            }
            for (pair, both) in panels.chunks(2).enumerate() {
                let a = [both[0], both[both.len() - 1]].map(|panel| Rows::of(job.acts, panel, first));
                for i in 0..tiles.len() {
                    let weights = unpacked.add(i * CHUNK * UNPACKED);
                    let sums = sums.add((i * rows + pair * 2 * TILE) * TILE);
                    match (both.len(), job.kind) {
                        (2, PackedType::Q6K) => pass::<2, false>(weights, super_blocks, &a, ints, sums),
                        (2, _) => pass::<2, true>(weights, super_blocks, &a, ints, sums),
                        (_, PackedType::Q6K) => pass::<1, false>(weights, super_blocks, &a, ints, sums),
                        _ => pass::<1, true>(weights, super_blocks, &a, ints, sums),
                    }
                }
            }
        }
    }
}

/// Activations of a panel from one super-block on.
struct Rows {
    q: *const i8,
    scales: *const f32,
    sums32: *const i16,
}

impl Rows {
    fn of(acts: &Activations, panel: Panel, super_block: usize) -> Self {
        let block = panel.before * (acts.k_padded / 256) + super_block * TILE;
        Self {
            q: acts.values(panel.before * acts.k_padded + super_block * 256 * TILE),
            scales: acts.scales[block..].as_ptr(),
            sums32: acts.sums32[block * 8..].as_ptr(),
        }
    }
}

/// One of the four steps of a super-block: 64 values. Its first two operands are the panels, its third the
/// planes.
macro_rules! step {
    ($panels:expr, $a:expr, $b:expr) => {
        asm!(
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {stride}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {stride} + 1024]",
            "tdpbsud tmm1, tmm4, tmm7",
            a = in(reg) $a[0], b = in(reg) $b, stride = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        );
        if $panels == 2 {
            asm!(
                "tileloadd tmm5, [{a} + {stride}]",
                "tdpbssd tmm2, tmm5, tmm6",
                "tdpbsud tmm3, tmm5, tmm7",
                a = in(reg) $a[1], stride = in(reg) 64usize,
                out("tmm2") _, out("tmm3") _, out("tmm5") _,
                options(nostack, preserves_flags),
            );
        }
    };
}

/// Adds the products of `super_blocks` super-blocks to `sums`, `[16 · P, 16]`; with mins where `MINS`.
///
/// While the tiles of a super-block are multiplied, the integers of the one before are scaled.
///
/// # Safety
///
/// The processor has AMX tiles, configured as for [`multiply`]; `weights` holds `super_blocks` unpacked
/// super-blocks, the first `P` of `a` as many of a whole panel, and `sums` 16 · `P` rows of 16.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pass<const P: usize, const MINS: bool>(
    weights: *const u8,
    super_blocks: usize,
    a: &[Rows; 2],
    ints: &mut [Sums; 2],
    sums: *mut f32,
) {
    // SAFETY: super-blocks, panels and sums are there, by the caller's promise.
    unsafe {
        for super_block in 0..=super_blocks {
            if super_block < super_blocks {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nomem, nostack, preserves_flags),
                );
            }
            for part in 0..4 {
                if super_block < super_blocks {
                    let q = [0, 1].map(|p: usize| a[p].q.add((super_block * 4 + part) * 64 * TILE));
                    step!(P, q, weights.add(super_block * UNPACKED + HEAD + part * 2048));
                }
                if super_block > 0 {
                    let done = super_block - 1;
                    let ints = &ints[done % 2];
                    let head = weights.add(done * UNPACKED);
                    let head = Head::read::<MINS>(head);
                    for row in part * P * 4..(part + 1) * P * 4 {
                        let (p, r) = (row / TILE, row % TILE);
                        scale::<MINS>(&head, ints, p, r, &a[p], done, sums.add(row * TILE));
                    }
                }
            }
            if super_block < super_blocks {
                let to = ints[super_block % 2].0.as_mut_ptr();
                asm!(
                    "tilestored [{to} + {stride}], tmm0",
                    "tilestored [{to} + {stride} + 1024], tmm1",
                    to = in(reg) to, stride = in(reg) 64usize,
                    options(nostack, preserves_flags),
                );
                if P == 2 {
                    asm!(
                        "tilestored [{to} + {stride} + 2048], tmm2",
                        "tilestored [{to} + {stride} + 3072], tmm3",
                        to = in(reg) to, stride = in(reg) 64usize,
                        options(nostack, preserves_flags),
                    );
                }
            }
        }
    }
}

/// Scales and mins for the integers of a super-block.
struct Head {
    d: __m512,
    dmin: __m512,
    mins: [__m512i; 4],
}

impl Head {
    /// From an unpacked super-block.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 with VNNI, and an unpacked super-block is at `p`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn read<const MINS: bool>(p: *const u8) -> Self {
        // SAFETY: an unpacked super-block is at `p`.
        unsafe {
            let zero = (_mm512_setzero_ps(), [_mm512_setzero_si512(); 4]);
            let (dmin, mins) = if MINS {
                (_mm512_loadu_ps(p.add(64).cast()), [0, 1, 2, 3].map(|i| load(p.add(128 + i * 64))))
            } else {
                zero
            };
            Self { d: _mm512_loadu_ps(p.cast()), dmin, mins }
        }
    }
}

/// Adds to `sum` the product of row `r` of panel `p` with one super-block, from its integers.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI; `rows` hold super-block `super_block` of a whole panel, and `sum` 16
/// values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn scale<const MINS: bool>(
    head: &Head,
    ints: &Sums,
    p: usize,
    r: usize,
    rows: &Rows,
    super_block: usize,
    sum: *mut f32,
) {
    // SAFETY: the caller's pointers hold a super-block of weights and of activations.
    unsafe {
        let high = _mm512_load_si512(ints.0[p * 2][r * TILE..].as_ptr().cast());
        let low = _mm512_load_si512(ints.0[p * 2 + 1][r * TILE..].as_ptr().cast());
        let exact = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low);
        let mut value = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), head.d);
        if MINS {
            let s = rows.sums32.add((super_block * TILE + r) * 8);
            value = take_mins(value, s, head.mins, head.dmin);
        }
        let scale = _mm512_set1_ps(*rows.scales.add(super_block * TILE + r));
        _mm512_storeu_ps(sum, _mm512_fmadd_ps(value, scale, _mm512_loadu_ps(sum)));
    }
}

/// Unpacks a super-block into planes.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI; a packed super-block of `kind` is at `w`, and `out` has room for an
/// unpacked one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn unpack(kind: PackedType, w: *const u8, out: *mut u8) {
    // SAFETY: a packed super-block is at `w`, and `out` has room for an unpacked one.
    unsafe {
        _mm512_storeu_ps(out.cast(), halves(w));
        let to = out.add(HEAD);
        match kind {
            PackedType::Q6K => {
                for part in 0..4 {
                    let p = w.add(HEADER + part * Q6K_PART);
                    for plane in 0..2 {
                        prefetch_stream::<7>(p.add(plane * 416));
                        let q = six_bits(load8(p), p.add(Q6K_HIGH), plane);
                        let pairs =
                            _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.add(Q6K_SCALES + plane * 32).cast()));
                        let first = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
                        let second = _mm512_srai_epi32::<16>(pairs);
                        planes(q, [twice(first), twice(second)], 32, to.add(part * 2048 + plane * 512));
                    }
                }
            }
            _ => {
                let fifth = kind == PackedType::Q5K;
                let step = if fifth { Q5K_PART } else { Q4K_PART };
                _mm512_storeu_ps(out.add(64).cast(), halves(w.add(32)));
                let m = if fifth {
                    mins::<Q5K_PART>(w.add(HEADER + K_MINS))
                } else {
                    mins::<Q4K_PART>(w.add(HEADER + K_MINS))
                };
                for (i, m) in m.into_iter().enumerate() {
                    _mm512_storeu_si512(out.add(128 + i * 64).cast(), m);
                }
                for part in 0..4 {
                    let p = w.add(HEADER + part * step);
                    for plane in 0..2 {
                        prefetch_stream::<6>(p.add(plane * step / 2));
                        let q = if fifth {
                            nibble_plane::<true>(load8(p), plane, p.add(Q5K_FIFTHS))
                        } else {
                            nibble_plane::<false>(load8(p), plane, p)
                        };
                        let scales =
                            _mm512_cvtepu8_epi32(_mm_loadu_si128(p.add(K_SCALES + plane * TILE).cast()));
                        planes(q, [twice(scales); 2], 0, to.add(part * 2048 + plane * 512));
                    }
                }
            }
        }
    }
}

/// Numbers of 32 bits, which fit 16, as two of 16 each.
///
/// # Safety
///
/// The processor has AVX-512 with BW.
#[inline(always)]
unsafe fn twice(x: __m512i) -> __m512i {
    // SAFETY: the caller has the instructions.
    unsafe { _mm512_mask_blend_epi16(0xAAAA_AAAA, x, _mm512_slli_epi32::<16>(x)) }
}

/// Stores the high and the low bytes of `(q - offset) * scale`, the high ones 1024 bytes before the low ones;
/// the first half of `q` has the first scale.
///
/// # Safety
///
/// The processor has AVX-512 with BW; `high` has room for 512 bytes, and again 1024 bytes later.
#[inline(always)]
unsafe fn planes(q: [__m512i; 8], scales: [__m512i; 2], offset: i16, high: *mut u8) {
    // SAFETY: the caller has the instructions, and the room.
    unsafe {
        let even = _mm512_set1_epi16(0xff);
        for (i, q) in q.into_iter().enumerate() {
            let scale = scales[i / 4];
            let less = _mm512_mullo_epi16(scale, _mm512_set1_epi16(offset));
            let mut e = _mm512_mullo_epi16(_mm512_and_si512(q, even), scale);
            let mut o = _mm512_mullo_epi16(_mm512_srli_epi16::<8>(q), scale);
            if offset != 0 {
                (e, o) = (_mm512_sub_epi16(e, less), _mm512_sub_epi16(o, less));
            }
            // even ? e : o << 8, and even ? e >> 8 : o
            let low = _mm512_mask_blend_epi8(0xAAAA_AAAA_AAAA_AAAA, e, _mm512_slli_epi16::<8>(o));
            let top = _mm512_mask_blend_epi8(0xAAAA_AAAA_AAAA_AAAA, _mm512_srli_epi16::<8>(e), o);
            _mm512_storeu_si512(high.add(i * 64).cast(), top);
            _mm512_storeu_si512(high.add(1024 + i * 64).cast(), low);
        }
    }
}
