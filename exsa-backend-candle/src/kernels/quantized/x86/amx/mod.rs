//! Products of many rows with AMX tiles: permission, registers, memory, and the loop over groups of weight
//! tiles.
//!
//! A group of weight tiles is unpacked once for all rows of activations, a part of `k` at a time.

mod blocks;
mod job;
mod planes;

pub(in crate::kernels::quantized) use job::Job;

use super::avx512;
use crate::kernels::quantized::activations::Panel;
use crate::kernels::quantized::layout::{PackedType, TILE};
use crate::kernels::quantized::scratch::{Line, Scratch, Sums};
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

/// Rows at least for which unpacking pays; `None` where weights of `kind` are not unpacked for tiles.
pub fn rows_min(kind: PackedType) -> Option<usize> {
    match kind {
        PackedType::Q4K | PackedType::Q5K | PackedType::Q6K => Some(32),
        PackedType::Q8_0 | PackedType::Q4_0 | PackedType::Q5_0 => Some(48),
        _ => None,
    }
}

/// Rows that go by the same unpacked weights at most: their sums stay in the second-level cache.
const ROWS_MAX: usize = 512;

/// Tiles that are unpacked at a time, so that a pair of panels is used for all of them while it is near.
pub const GROUP: usize = 4;

/// Whether this processor has what is needed and the system lets this process use it.
pub fn available() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| avx512::available() && has_tiles() && permit())
}

fn has_tiles() -> bool {
    let leaf = __cpuid_count(7, 0);
    let bits = 1 << 24 | 1 << 25;
    leaf.edx & bits == bits
}

/// Asks Linux for the tile registers, which it gives to processes that ask.
#[cfg(target_os = "linux")]
fn permit() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: the call changes nothing but the permission; the kernel clobbers rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permit() -> bool {
    false
}

/// The shapes of the tile registers.
#[repr(C, align(64))]
struct Config([u8; 64]);

impl Config {
    /// Registers 0 to 3 are 16 rows of 64 bytes. 4 and 5, for activations, have 16 rows of `width` bytes, and
    /// 6 and 7, for weights, as many rows of 64 as that takes.
    const fn new(width: usize) -> Self {
        let mut config = Self([0; 64]);
        config.0[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            config.0[16 + 2 * tile] = if tile == 4 || tile == 5 { width as u8 } else { 64 };
            config.0[48 + tile] = if tile >= 6 { width as u8 / 4 } else { 16 };
            tile += 1;
        }
        config
    }
}

const WIDE: Config = Config::new(64);
const NARROW: Config = Config::new(32);

/// Rows up to which tiles are not taken in groups.
const FEW_ROWS: usize = 64;

/// Lines of [`Scratch::sums`].
const SUM_LINES: usize = GROUP * ROWS_MAX;

/// Lines of [`Scratch::unpacked`].
fn unpacked_lines() -> usize {
    GROUP * planes::CHUNK_BYTES.max(blocks::CHUNK_BYTES) / size_of::<Line>()
}

/// Bytes of the scratch memory of one thread.
pub fn scratch_bytes() -> usize {
    size_of::<Scratch>() + (unpacked_lines() + SUM_LINES) * size_of::<Line>() + size_of::<[Sums; 2]>()
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            unpacked: Vec::with_capacity(unpacked_lines()),
            sums: Vec::with_capacity(SUM_LINES),
            ints: Box::default(),
        }
    }
}

/// Multiplies `panels`, each of 16 rows, with `tiles`.
///
/// # Safety
///
/// If there are any panels, the processor has what [`available`] asks for. `job` has `super_blocks`
/// super-blocks of its kind for each of `tiles`, and activations quantized for them; nobody else uses the
/// columns of these tiles in the panels' rows of its output.
pub(in crate::kernels::quantized) unsafe fn multiply(
    job: &Job<'_>,
    panels: &[Panel],
    tiles: Range<usize>,
    scratch: &mut Scratch,
) {
    if panels.is_empty() || tiles.is_empty() {
        return;
    }
    let wide = planes::supports(job.kind);
    let unpacked = if wide { planes::CHUNK_BYTES } else { blocks::CHUNK_BYTES };
    scratch.unpacked.resize(GROUP * unpacked / 64, Line([0; 64]));
    // SAFETY: the processor has tiles; they are given back before anything else runs here.
    unsafe {
        let config = if wide { &WIDE } else { &NARROW };
        asm!("ldtilecfg [{}]", in(reg) config.0.as_ptr(), options(nostack));
        for panels in panels.chunks(ROWS_MAX / TILE) {
            scratch.sums.resize(GROUP * panels.len() * TILE, Line([0; 64]));
            let mut start = tiles.start;
            while start < tiles.end {
                // Few rows soon come round: then tiles are read as one stream each.
                let width = if panels.len() * TILE <= FEW_ROWS { 1 } else { GROUP };
                let group = start..tiles.end.min(start + width);
                start = group.end;
                scratch.sums.fill(Line([0; 64]));
                if wide {
                    planes::multiply(job, panels, group.clone(), scratch);
                } else {
                    blocks::multiply(job, panels, group.clone(), scratch);
                }
                write(job, panels, group, scratch);
            }
        }
        asm!("tilerelease", options(nostack));
    }
}

/// Writes the sums of a group of tiles to the output.
///
/// # Safety
///
/// As of [`multiply`], for `panels` and `tiles` whose sums are in `scratch`.
#[target_feature(enable = "avx512f")]
unsafe fn write(job: &Job<'_>, panels: &[Panel], tiles: Range<usize>, scratch: &Scratch) {
    let rows = panels.len() * TILE;
    // Columns side by side together: rows of the output lie far apart.
    for (p, panel) in panels.iter().enumerate() {
        for row in 0..TILE {
            for (i, tile) in tiles.clone().enumerate() {
                let column = tile * TILE;
                let mask = ((1u32 << TILE.min(job.n - column)) - 1) as __mmask16;
                let sum = &scratch.sums[i * rows + p * TILE + row];
                // SAFETY: the row and the masked columns are in the matrix, and nobody else writes them.
                unsafe {
                    let out = job.out.at((panel.start + row) * job.n + column);
                    _mm512_mask_storeu_ps(out, mask, _mm512_load_ps(sum.0.as_ptr().cast()));
                }
            }
        }
    }
}

/// A loop of products from registers, to compare with. Returns the multiplications and additions that it did.
///
/// # Safety
///
/// [`available`] is true.
pub unsafe fn peak() -> u64 {
    const ROUNDS: u64 = 20_000;
    // SAFETY: the processor has tiles; they are given back before anything else runs here.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) WIDE.0.as_ptr(), options(nostack));
        for _ in 0..ROUNDS {
            asm!(
                "tdpbsud tmm0, tmm4, tmm6", "tdpbsud tmm1, tmm4, tmm7",
                "tdpbsud tmm2, tmm5, tmm6", "tdpbsud tmm3, tmm5, tmm7",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nomem, nostack, preserves_flags),
            );
        }
        asm!("tilerelease", options(nostack));
    }
    ROUNDS * 4 * 2 * 16 * 16 * 64
}
