//! Tiles of the kinds that have a scale for each 32 weights and each 32 activations.
//!
//! The integers of each block leave the tile registers to be scaled: half of the time goes there, and yet it is faster than
//! vectors alone.

use super::job::Job;
use crate::kernels::memory::prefetch as ahead;
use crate::kernels::quantized::activations::Panel;
use crate::kernels::quantized::layout::{Kind, TILE};
use crate::kernels::quantized::scratch::{Scratch, Sums};
use crate::kernels::quantized::x86::avx512::{halves, load8, nibble_plane};
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

/// Units that are unpacked at a time.
const CHUNK: usize = 16;

/// A unit, unpacked: the two scales of each row in f32, then two blocks of signed bytes.
const HEAD: usize = 128;
const UNPACKED: usize = HEAD + 2 * 512;

/// Bytes of what is unpacked of a tile.
pub(super) const CHUNK_BYTES: usize = CHUNK * UNPACKED;

/// Adds to the sums the products of `panels`, each of 16 rows, with a group of tiles.
///
/// # Safety
///
/// As of [`super::multiply`]; the registers are narrow; and `scratch` has room.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply(job: &Job<'_>, panels: &[Panel], tiles: Range<usize>, scratch: &mut Scratch) {
    let unit_bytes = job.kind.unit_bytes();
    let rows = panels.len() * TILE;
    let unpacked = scratch.unpacked.as_mut_ptr().cast::<u8>();
    let sums = scratch.sums.as_mut_ptr().cast::<f32>();
    let ints = &mut *scratch.ints;
    // SAFETY: `scratch` has room for a group of tiles; instructions, weights and panels by this function's contract.
    unsafe {
        for first in (0..job.units).step_by(CHUNK) {
            let units = CHUNK.min(job.units - first);
            for (i, tile) in tiles.clone().enumerate() {
                for unit in 0..units {
                    let packed = &job.weights[(tile * job.units + first + unit) * unit_bytes..][..unit_bytes];
                    unpack(job.kind, packed.as_ptr(), unpacked.add((i * CHUNK + unit) * UNPACKED));
                }
            }
            for (p, panel) in panels.iter().enumerate() {
                let acts = job.acts;
                let q = acts.values(panel.before * acts.k_padded + first * 64 * TILE);
                let scales = acts.scales[panel.before * (acts.k_padded / 32) + first * 2 * TILE..].as_ptr();
                for i in 0..tiles.len() {
                    let sums = sums.add((i * rows + p * TILE) * TILE);
                    pass(unpacked.add(i * CHUNK * UNPACKED), units, q, scales, ints, sums);
                }
            }
        }
    }
}

/// Adds the products of `units` units with a panel to `sums`, `[16, 16]`.
///
/// While the tiles of a unit are multiplied, the integers of the one before are scaled.
///
/// # Safety
///
/// The processor has AMX tiles, configured as for [`multiply`]; `weights` holds `units` unpacked units, `q` and `scales` as
/// many of a whole panel, and `to` 16 rows of 16 sums.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pass(
    weights: *const u8,
    units: usize,
    q: *const i8,
    scales: *const f32,
    ints: &mut [Sums; 2],
    to: *mut f32,
) {
    // SAFETY: units, panel and sums are there, by the caller's promise.
    unsafe {
        let mut sums: [__m512; TILE] = std::array::from_fn(|r| _mm512_loadu_ps(to.add(r * TILE)));
        for unit in 0..=units {
            if unit < units {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "tileloadd tmm4, [{a} + {stride}]",
                    "tileloadd tmm6, [{b} + {stride}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{a} + {stride} + 32]",
                    "tileloadd tmm7, [{b} + {stride} + 512]",
                    "tdpbssd tmm1, tmm5, tmm7",
                    "tilestored [{to} + {stride}], tmm0",
                    "tilestored [{to} + {stride} + 1024], tmm1",
                    a = in(reg) q.add(unit * 64 * TILE),
                    b = in(reg) weights.add(unit * UNPACKED + HEAD),
                    to = in(reg) ints[unit % 2].0.as_mut_ptr(),
                    stride = in(reg) 64usize,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                );
            }
            if unit > 0 {
                let done = unit - 1;
                for second in 0..2 {
                    let dots = &ints[done % 2].0[second];
                    let d = _mm512_loadu_ps(weights.add(done * UNPACKED + second * 64).cast());
                    let scale = scales.add((done * 2 + second) * TILE);
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let dots = _mm512_load_si512(dots[r * TILE..].as_ptr().cast());
                        let both = _mm512_mul_ps(d, _mm512_set1_ps(*scale.add(r)));
                        *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), both, *sum);
                    }
                }
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            _mm512_storeu_ps(to.add(r * TILE), sum);
        }
    }
}

/// Turns a packed unit into scales and signed bytes.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI; a packed unit of `kind` is at `w`, and `out` has room for an unpacked one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn unpack(kind: Kind, w: *const u8, out: *mut u8) {
    // SAFETY: a packed unit is at `w`, and `out` has room for an unpacked one.
    unsafe {
        let offset = _mm512_set1_epi8(kind.offset() as i8);
        for second in 0..2 {
            _mm512_storeu_ps(out.add(second * 64).cast(), halves(w.add(second * 32)));
            ahead::ask::<9>(w.add(second * kind.unit_bytes() / 2));
            let q = match kind {
                Kind::Q8_0 => load8(w.add(64 + second * 512)),
                Kind::Q5_0 => nibble_plane::<true>(load8(w.add(64)), second, w.add(576)),
                _ => nibble_plane::<false>(load8(w.add(64)), second, w),
            };
            for (j, q) in q.into_iter().enumerate() {
                let to = out.add(HEAD + second * 512 + j * 64);
                _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(q, offset));
            }
        }
    }
}
