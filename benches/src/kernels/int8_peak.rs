//! How many 8-bit multiply-adds the processor can do when nothing has to come from memory.

use serde::Serialize;
use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::time::Instant;

/// Times that the loop is run; the best one counts, since whatever disturbs a run makes it slower.
const RUNS: usize = 12;

/// Iterations of the loop in one run: some 2 ms.
const ITERATIONS: u64 = 1 << 18;

/// The peak of all threads together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Int8Peak {
    /// Operations in a second; a multiply-add counts as two.
    pub operations_per_second: f64,
    /// The instructions that it was measured with.
    pub instructions: &'static str,
}

/// A loop in registers alone.
struct Kernel {
    instructions: &'static str,
    /// Operations of one iteration.
    operations: u64,
    run: fn(u64),
}

/// Runs the best loop that this processor has on `threads` threads; `None` where there is none for it.
pub fn measure(threads: NonZeroUsize) -> Option<Int8Peak> {
    kernel().map(|kernel| measure_kernel(&kernel, threads))
}

fn measure_kernel(kernel: &Kernel, threads: NonZeroUsize) -> Int8Peak {
    let barrier = Barrier::new(threads.get());
    let runs: Vec<[(Instant, Instant); RUNS]> = std::thread::scope(|scope| {
        let run = || {
            std::array::from_fn(|_| {
                barrier.wait();
                let start = Instant::now();
                (kernel.run)(ITERATIONS);
                (start, Instant::now())
            })
        };
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(run)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let seconds = (0..RUNS).filter_map(|i| {
        let start = runs.iter().map(|run| run[i].0).min()?;
        let end = runs.iter().map(|run| run[i].1).max()?;
        Some((end - start).as_secs_f64())
    });
    let best = seconds.fold(f64::INFINITY, f64::min).max(1e-9);
    let operations = kernel.operations * ITERATIONS * threads.get() as u64;
    Int8Peak { operations_per_second: operations as f64 / best, instructions: kernel.instructions }
}

#[cfg(not(target_arch = "x86_64"))]
fn kernel() -> Option<Kernel> {
    None
}

#[cfg(target_arch = "x86_64")]
fn kernel() -> Option<Kernel> {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has both features.
        let run = |iterations| unsafe { x86::vnni_512(iterations) };
        let operations = 2 * 64 * x86::CHAINS as u64;
        return Some(Kernel { instructions: "avx512-vnni", operations, run });
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature.
        let run = |iterations| unsafe { x86::avx2(iterations) };
        return Some(Kernel { instructions: "avx2", operations: 2 * 32 * x86::CHAINS as u64, run });
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Sums that do not wait for one another: more than the instruction's latency times what may start in a
    /// cycle.
    pub const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni_512(iterations: u64) {
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(-5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2(iterations: u64) {
        let (a, b) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(-5)));
        let ones = black_box(_mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..iterations {
            for sum in &mut sums {
                // The operand depends on the sum, or the compiler would take the products out of the loop.
                let pairs = _mm256_maddubs_epi16(_mm256_xor_si256(a, *sum), b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_within_what_processors_do() {
        if let Some(peak) = measure(NonZeroUsize::MIN) {
            let giga = peak.operations_per_second / 1e9;
            assert!((0.01..20_000.0).contains(&giga), "{peak:?}");
        }
    }
}
