//! Products of many rows with AMX tiles, for the kinds whose scales are integers within blocks of 256.
//!
//! Weights times their integer scales are exact in 16 bits, which is two planes of bytes; the products of both planes
//! are summed over 256 values in the tiles, in exact integers, so that nothing has to be scaled in between. What
//! follows is the arithmetic of the other kernels, and so are the results, to the bit.
//!
//! A tile of weights is unpacked into planes once for all rows of activations; two panels of 16 rows go by at a time.

use super::activations::{Activations, Panel};
use super::avx512::{halves, load, load8, mins, nibble_plane, six_bits, take_mins};
use super::layout::{Kind, TILE};
use super::team::Target;
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

/// Rows at least for which unpacking pays.
pub(super) const ROWS_MIN: usize = 32;

/// Rows that go by the same unpacked weights at most: their sums stay in the second-level cache.
const ROWS_MAX: usize = 512;

/// Tiles that are unpacked at a time, so that a pair of panels is used for all of them while it is near.
pub(super) const GROUP: usize = 4;

/// Units that are unpacked at a time.
const CHUNK: usize = 2;

/// A unit, unpacked: `d`, `dmin` and the mins, then for each 64 values a high and a low plane of 1024 bytes.
const HEAD: usize = 64 + 64 + 256;
const UNPACKED: usize = HEAD + 4 * 2048;

/// Whether this processor has what is needed and the system lets this process use it.
pub(super) fn available() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| super::avx512::available() && has_tiles() && permit())
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

/// Whether products with weights of this kind are faster here.
pub(super) fn supports(kind: Kind) -> bool {
    matches!(kind, Kind::Q4K | Kind::Q5K | Kind::Q6K)
}

/// The shapes of the tile registers: all are 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

const CONFIG: Config = {
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        config.0[16 + 2 * tile] = 64;
        config.0[48 + tile] = 16;
        tile += 1;
    }
    config
};

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// What a thread works in; it is kept between calls.
#[derive(Default)]
struct Scratch {
    unpacked: Vec<Line>,
    sums: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Where the weights are and where the products go.
pub(super) struct Job<'a> {
    pub kind: Kind,
    pub weights: &'a [u8],
    pub units: usize,
    pub acts: &'a Activations,
    pub out: &'a Target<f32>,
    /// Columns of `out`.
    pub n: usize,
}

/// Multiplies `panels`, each of 16 rows, with `tiles`.
///
/// # Safety
///
/// If there are any panels, [`available`] is true; the lengths fit; and nobody else writes these columns of the panels' rows.
pub(super) unsafe fn multiply(job: &Job<'_>, panels: &[Panel], tiles: Range<usize>) {
    if panels.is_empty() || tiles.is_empty() {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.unpacked.resize(GROUP * CHUNK * UNPACKED / 64, Line([0; 64]));
        // SAFETY: the processor has tiles; they are given back before anything else runs here.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) CONFIG.0.as_ptr(), options(nostack));
            for panels in panels.chunks(ROWS_MAX / TILE) {
                scratch.sums.resize(GROUP * panels.len() * TILE, Line([0; 64]));
                let mut start = tiles.start;
                while start < tiles.end {
                    let end = tiles.end.min(start + GROUP);
                    group(job, panels, start..end, scratch);
                    start = end;
                }
            }
            asm!("tilerelease", options(nostack));
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group(job: &Job<'_>, panels: &[Panel], tiles: Range<usize>, scratch: &mut Scratch) {
    let unit_bytes = job.kind.unit_bytes();
    let rows = panels.len() * TILE;
    let unpacked = scratch.unpacked.as_mut_ptr().cast::<u8>();
    let sums = scratch.sums.as_mut_ptr().cast::<f32>();
    scratch.sums.fill(Line([0; 64]));
    // SAFETY: `scratch` has room for a group of tiles; the rest by the contract of `multiply`.
    unsafe {
        for first in (0..job.units).step_by(CHUNK) {
            let units = CHUNK.min(job.units - first);
            for (i, tile) in tiles.clone().enumerate() {
                for unit in 0..units {
                    let packed = &job.weights[(tile * job.units + first + unit) * unit_bytes..][..unit_bytes];
                    unpack(job.kind, packed.as_ptr(), unpacked.add((i * CHUNK + unit) * UNPACKED));
                }
            }
            for (pair, both) in panels.chunks(2).enumerate() {
                let a = [both[0], both[both.len() - 1]].map(|panel| Rows::of(job.acts, panel, first));
                for i in 0..tiles.len() {
                    let weights = unpacked.add(i * CHUNK * UNPACKED);
                    let sums = sums.add((i * rows + pair * 2 * TILE) * TILE);
                    match (both.len(), job.kind) {
                        (2, Kind::Q6K) => pass::<2, false>(weights, units, &a, sums),
                        (2, _) => pass::<2, true>(weights, units, &a, sums),
                        (_, Kind::Q6K) => pass::<1, false>(weights, units, &a, sums),
                        _ => pass::<1, true>(weights, units, &a, sums),
                    }
                }
            }
        }
        for (i, tile) in tiles.enumerate() {
            let column = tile * TILE;
            let mask = ((1u32 << TILE.min(job.n - column)) - 1) as __mmask16;
            for (p, panel) in panels.iter().enumerate() {
                for row in 0..TILE {
                    let sum = _mm512_loadu_ps(sums.add((i * rows + p * TILE + row) * TILE));
                    let out = job.out.at((panel.start + row) * job.n + column);
                    _mm512_mask_storeu_ps(out, mask, sum);
                }
            }
        }
    }
}

/// Activations of a panel from one unit on.
struct Rows {
    q: *const i8,
    scales: *const f32,
    sums32: *const i16,
}

impl Rows {
    fn of(acts: &Activations, panel: Panel, unit: usize) -> Self {
        let block = panel.before * (acts.k_padded / 256) + unit * TILE;
        Self {
            q: acts.q[panel.before * acts.k_padded + unit * 256 * TILE..].as_ptr(),
            scales: acts.scales[block..].as_ptr(),
            sums32: acts.sums32[block * 8..].as_ptr(),
        }
    }
}

/// Integer sums of two panels as the tiles leave them: high and low of the first, high and low of the second.
#[repr(C, align(64))]
struct Sums([[i32; TILE * TILE]; 4]);

/// One of the four steps of a unit: 64 values. Its first two operands are the panels, its third the planes.
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

/// Adds the products of `units` units to `sums`, `[16 · P, 16]`; with mins where `MINS`.
///
/// While the tiles of a unit are multiplied, the integers of the one before are scaled.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pass<const P: usize, const MINS: bool>(
    weights: *const u8,
    units: usize,
    a: &[Rows; 2],
    sums: *mut f32,
) {
    let mut ints = [Sums([[0; TILE * TILE]; 4]), Sums([[0; TILE * TILE]; 4])];
    // SAFETY: lengths by the contract of `group`.
    unsafe {
        for unit in 0..=units {
            if unit < units {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nomem, nostack, preserves_flags),
                );
            }
            for part in 0..4 {
                if unit < units {
                    let q = [0, 1].map(|p: usize| a[p].q.add((unit * 4 + part) * 64 * TILE));
                    step!(P, q, weights.add(unit * UNPACKED + HEAD + part * 2048));
                }
                if unit > 0 {
                    let done = unit - 1;
                    let ints = &ints[done % 2];
                    let head = weights.add(done * UNPACKED);
                    let head = Head::read::<MINS>(head);
                    for row in part * P * 4..(part + 1) * P * 4 {
                        let (p, r) = (row / TILE, row % TILE);
                        scale::<MINS>(&head, ints, p, r, &a[p], done, sums.add(row * TILE));
                    }
                }
            }
            if unit < units {
                let to = ints[unit % 2].0.as_mut_ptr();
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

/// What the integers of a unit are scaled with.
struct Head {
    d: __m512,
    dmin: __m512,
    mins: [__m512i; 4],
}

impl Head {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn read<const MINS: bool>(p: *const u8) -> Self {
        // SAFETY: an unpacked unit is at `p`.
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

/// Adds to `sum` the product of row `r` of panel `p` with one unit, from its integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn scale<const MINS: bool>(
    head: &Head,
    ints: &Sums,
    p: usize,
    r: usize,
    rows: &Rows,
    unit: usize,
    sum: *mut f32,
) {
    // SAFETY: the caller's pointers hold a unit of weights and of activations.
    unsafe {
        let high = _mm512_load_si512(ints.0[p * 2][r * TILE..].as_ptr().cast());
        let low = _mm512_load_si512(ints.0[p * 2 + 1][r * TILE..].as_ptr().cast());
        let exact = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low);
        let mut value = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), head.d);
        if MINS {
            let s = rows.sums32.add((unit * TILE + r) * 8);
            value = take_mins(value, s, head.mins, head.dmin);
        }
        let scale = _mm512_set1_ps(*rows.scales.add(unit * TILE + r));
        _mm512_storeu_ps(sum, _mm512_fmadd_ps(value, scale, _mm512_loadu_ps(sum)));
    }
}

/// Turns a packed unit into planes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn unpack(kind: Kind, w: *const u8, out: *mut u8) {
    // SAFETY: a packed unit is at `w`, and `out` has room for an unpacked one.
    unsafe {
        _mm512_storeu_ps(out.cast(), halves(w));
        let to = out.add(HEAD);
        match kind {
            Kind::Q6K => {
                for part in 0..4 {
                    let p = w.add(64 + part * 832);
                    for plane in 0..2 {
                        let q = six_bits(load8(p), p.add(512), plane);
                        let pairs = _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.add(768 + plane * 32).cast()));
                        let first = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
                        let second = _mm512_srai_epi32::<16>(pairs);
                        planes(q, [twice(first), twice(second)], 32, to.add(part * 2048 + plane * 512));
                    }
                }
            }
            _ => {
                let fifth = kind == Kind::Q5K;
                let step = if fifth { 704 } else { 576 };
                _mm512_storeu_ps(out.add(64).cast(), halves(w.add(32)));
                let m = if fifth { mins::<704>(w.add(64 + 544)) } else { mins::<576>(w.add(64 + 544)) };
                for (i, m) in m.into_iter().enumerate() {
                    _mm512_storeu_si512(out.add(128 + i * 64).cast(), m);
                }
                for part in 0..4 {
                    let p = w.add(64 + part * step);
                    for plane in 0..2 {
                        let q = if fifth {
                            nibble_plane::<true>(load8(p), plane, p.add(576))
                        } else {
                            nibble_plane::<false>(load8(p), plane, p)
                        };
                        let scales = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.add(512 + plane * 16).cast()));
                        planes(q, [twice(scales); 2], 0, to.add(part * 2048 + plane * 512));
                    }
                }
            }
        }
    }
}

/// Numbers of 32 bits, which fit 16, as two of 16 each.
#[inline(always)]
unsafe fn twice(x: __m512i) -> __m512i {
    // SAFETY: the caller has the instructions.
    unsafe { _mm512_mask_blend_epi16(0xAAAA_AAAA, x, _mm512_slli_epi32::<16>(x)) }
}

/// Stores the high and the low bytes of `(q - offset) * scale`, the high ones 1024 bytes before the low ones; the first
/// half of `q` has the first scale.
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

/// A loop of products from registers, to compare with. Returns the multiplications and additions that it did.
///
/// # Safety
///
/// [`available`] is true.
pub(super) unsafe fn peak() -> u64 {
    const ROUNDS: u64 = 20_000;
    // SAFETY: the processor has tiles; they are given back before anything else runs here.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) CONFIG.0.as_ptr(), options(nostack));
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
