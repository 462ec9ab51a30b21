//! Limits of the machine, for benchmarks to compare kernels with: integer products from registers, and plain
//! reads.

use crate::kernels::memory::team::Team;
use std::hint::black_box;
use std::time::Instant;

/// Billions of int8 multiplications and additions in a second (two operations for each product) that `team`
/// does with operands in registers, with the widest dot products of bytes that kernels here use apart from
/// tiles; `None` where there is no such loop for this processor.
pub fn vector_peak(team: &mut Team) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if super::x86::avx512::available() {
        // SAFETY: the processor has the instructions.
        return Some(best(team, || unsafe { super::x86::avx512::peak() }));
    }
    let _ = team;
    None
}

/// The same with AMX tiles.
pub fn tile_peak(team: &mut Team) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if super::x86::amx::available() {
        // SAFETY: the processor has tiles.
        return Some(best(team, || unsafe { super::x86::amx::peak() }));
    }
    let _ = team;
    None
}

/// The best of some rounds, in billions of operations a second; `work` returns how many it did.
pub(crate) fn best(team: &mut Team, work: impl Fn() -> u64 + Sync) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..20 {
        let done = std::sync::atomic::AtomicU64::new(0);
        let start = Instant::now();
        team.for_each(team.threads() * 4, 1, |range| {
            for _ in range {
                done.fetch_add(work(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        best = best.max(done.into_inner() as f64 / start.elapsed().as_secs_f64() * 1e-9);
    }
    best
}

/// Reads `bytes` once, each thread of `team` runs of it, and adds them up, asking ahead as the kernels do.
pub fn read(bytes: &[u8], team: &mut Team) {
    const RUN: usize = 256 << 10;
    let runs = bytes.len().div_ceil(RUN);
    team.for_each(runs, team.grain(runs), |range| {
        let end = bytes.len().min(range.end * RUN);
        black_box(sum(&bytes[range.start * RUN..end]));
    });
}

crate::kernels::simd::dispatch! {
    /// Adds up words, in as many sums as keep the loads going.
    sum_words = sum_words_body(words: &[[u64; 32]], total: &mut u64)
}

#[inline(always)]
fn sum_words_body<S: crate::kernels::simd::Simd>(words: &[[u64; 32]], total: &mut u64) {
    let mut sums = [0u64; 32];
    for chunk in words {
        crate::kernels::memory::prefetch::prefetch_stream::<4>(chunk.as_ptr().cast());
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    *total = sums.into_iter().fold(*total, u64::wrapping_add);
}

fn sum(bytes: &[u8]) -> u64 {
    // SAFETY: any bytes are integers.
    let (_, words, _) = unsafe { bytes.align_to::<[u64; 32]>() };
    let mut total = 0;
    sum_words(words, &mut total);
    total
}
