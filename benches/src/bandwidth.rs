//! How fast memory can be read.

use crate::error::BenchError;
use memmap2::MmapMut;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Bytes of the buffer for each thread, and for all together at least: far more than what caches hold, and
/// than the share of a cache that many processors have in common.
const BYTES_PER_THREAD: usize = 64 << 20;
const BYTES_MIN: usize = 512 << 20;
const BYTES_MAX: usize = 4 << 30;

/// Passes over the buffer; the best one counts, since whatever disturbs a pass makes it slower.
const PASSES: usize = 6;

/// A pass is cut into chunks of this size, each summed by eight running sums.
const LANES: usize = 8;

/// Reads a buffer with `threads` threads, each its own part, and gives the bytes per second of the best pass.
pub fn measure(threads: NonZeroUsize) -> Result<f64, BenchError> {
    read_rate(threads, BYTES_PER_THREAD.saturating_mul(threads.get()).clamp(BYTES_MIN, BYTES_MAX))
}

fn read_rate(threads: NonZeroUsize, bytes: usize) -> Result<f64, BenchError> {
    let mut buffer = MmapMut::map_anon(bytes).map_err(BenchError::Bandwidth)?;
    // On pages of 4 KiB a third of the time goes into finding them. A system without huge pages refuses, and
    // is measured as it is.
    #[cfg(target_os = "linux")]
    let _ = buffer.advise(memmap2::Advice::HugePage);
    let part = bytes.div_ceil(threads.get());
    let barrier = Barrier::new(bytes.div_ceil(part));
    let passes: Vec<[Pass; PASSES]> = std::thread::scope(|scope| {
        let readers: Vec<_> =
            buffer.chunks_mut(part).map(|part| scope.spawn(|| read_passes(part, &barrier))).collect();
        // A reader has nothing in it that could panic; if one did, the others would wait for it anyway.
        readers.into_iter().filter_map(|reader| reader.join().ok()).collect()
    });
    let best = (0..PASSES).filter_map(|i| whole(passes.iter().map(|reader| &reader[i]))).min();
    Ok(bytes as f64 / best.unwrap_or(Duration::MAX).max(Duration::from_nanos(1)).as_secs_f64())
}

/// When a reader began and ended a pass.
type Pass = (Instant, Instant);

fn read_passes(part: &mut [u8], barrier: &Barrier) -> [Pass; PASSES] {
    // The thread that reads a page is the first to touch it, so that it lies near.
    part.fill(1);
    std::array::from_fn(|_| {
        barrier.wait();
        let start = Instant::now();
        black_box(sum(part));
        (start, Instant::now())
    })
}

/// From the first beginning to the last end: a thread that the system held up counts as what it is.
fn whole<'a>(mut readers: impl Iterator<Item = &'a Pass>) -> Option<Duration> {
    let first = readers.next()?;
    let (start, end) = readers.fold(*first, |(start, end), pass| (start.min(pass.0), end.max(pass.1)));
    Some(end - start)
}

/// The sum of all words, in as many independent sums as keep the loads going.
fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let (chunks, _) = words.as_chunks::<LANES>();
    let mut sums = [0u64; LANES];
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read() {
        let mut bytes = vec![0u8; 1024];
        bytes.chunks_mut(8).enumerate().for_each(|(i, word)| word[0] = i as u8);
        assert_eq!(sum(&bytes), (0..128u64).sum::<u64>());
    }

    #[test]
    fn rates_are_positive_for_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let threads = NonZeroUsize::new(threads).unwrap();
            let rate = read_rate(threads, 1 << 20).unwrap();
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
        assert!(read_rate(NonZeroUsize::new(64).unwrap(), 8).unwrap() > 0.0);
    }
}
