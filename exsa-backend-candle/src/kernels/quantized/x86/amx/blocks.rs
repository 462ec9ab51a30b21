//! Tiles of the kinds that have a scale for each 32 weights and each 32 activations.
//!
//! The integers of each block leave the tile registers to be scaled: half of the time goes there, and yet it
//! is faster than vectors alone.

use super::job::Job;
use crate::kernels::memory::prefetch::prefetch_stream;
use crate::kernels::quantized::activations::Panel;
use crate::kernels::quantized::layout::{HEADER, PackedType, Q5_0_FIFTHS, QUANTS, TILE};
use crate::kernels::quantized::scratch::{Scratch, Sums};
use crate::kernels::quantized::x86::avx512::{halves, load8, nibble_plane};
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

/// Super-blocks that are unpacked at a time.
const CHUNK: usize = 16;

/// A super-block, unpacked: the two scales of each row in f32, then two blocks of signed bytes.
const HEAD: usize = 128;
const UNPACKED: usize = HEAD + 2 * QUANTS;

/// Bytes of what is unpacked of a tile.
pub(super) const CHUNK_BYTES: usize = CHUNK * UNPACKED;

/// Adds to the sums the products of `panels`, each of 16 rows, with a group of tiles.
///
/// # Safety
///
/// As of [`super::multiply`]; the registers are narrow; and `scratch` has room.
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
            for (p, panel) in panels.iter().enumerate() {
                let acts = job.acts;
                let q = acts.values(panel.before * acts.k_padded + first * 64 * TILE);
                let scales = acts.scales[panel.before * (acts.k_padded / 32) + first * 2 * TILE..].as_ptr();
                for i in 0..tiles.len() {
                    let sums = sums.add((i * rows + p * TILE) * TILE);
                    pass(unpacked.add(i * CHUNK * UNPACKED), super_blocks, q, scales, ints, sums);
                }
            }
        }
    }
}

/// Adds the products of `super_blocks` super-blocks with a panel to `sums`, `[16, 16]`.
///
/// While the tiles of a super-block are multiplied, the integers of the one before are scaled.
///
/// # Safety
///
/// The processor has AMX tiles, configured as for [`multiply`]; `weights` holds `super_blocks` unpacked
/// super-blocks, `q` and `scales` as many of a whole panel, and `to` 16 rows of 16 sums.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pass(
    weights: *const u8,
    super_blocks: usize,
    q: *const i8,
    scales: *const f32,
    ints: &mut [Sums; 2],
    to: *mut f32,
) {
    // SAFETY: super-blocks, panel and sums are there, by the caller's promise.
    unsafe {
        let mut sums: [__m512; TILE] = std::array::from_fn(|r| _mm512_loadu_ps(to.add(r * TILE)));
        for super_block in 0..=super_blocks {
            if super_block < super_blocks {
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
                    a = in(reg) q.add(super_block * 64 * TILE),
                    b = in(reg) weights.add(super_block * UNPACKED + HEAD),
                    to = in(reg) ints[super_block % 2].0.as_mut_ptr(),
                    stride = in(reg) 64usize,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                );
            }
            if super_block > 0 {
                let done = super_block - 1;
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

/// Unpacks a super-block into scales and signed bytes.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI; a packed super-block of `kind` is at `w`, and `out` has room for an
/// unpacked one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn unpack(kind: PackedType, w: *const u8, out: *mut u8) {
    // SAFETY: a packed super-block is at `w`, and `out` has room for an unpacked one.
    unsafe {
        let offset = _mm512_set1_epi8(kind.offset() as i8);
        for second in 0..2 {
            _mm512_storeu_ps(out.add(second * 64).cast(), halves(w.add(second * 32)));
            prefetch_stream::<9>(w.add(second * kind.super_block_bytes() / 2));
            let q = match kind {
                PackedType::Q8_0 => load8(w.add(HEADER + second * QUANTS)),
                PackedType::Q5_0 => nibble_plane::<true>(load8(w.add(HEADER)), second, w.add(Q5_0_FIFTHS)),
                _ => nibble_plane::<false>(load8(w.add(HEADER)), second, w),
            };
            for (j, q) in q.into_iter().enumerate() {
                let to = out.add(HEAD + second * QUANTS + j * 64);
                _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(q, offset));
            }
        }
    }
}
