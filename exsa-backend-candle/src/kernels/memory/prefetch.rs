//! Software prefetch of weights, keys and values.
//!
//! The hardware prefetcher stays within a page and a few lines ahead, which keeps fewer reads in flight than
//! memory can serve. Kernels therefore prefetch twice: far ahead into the second-level cache, and near into
//! the first.

/// Prefetch distance in bytes, from memory into the second-level cache.
#[cfg(target_arch = "x86_64")]
const FAR: usize = 8192;

/// Prefetch distance in bytes, from the second-level cache into the first.
#[cfg(target_arch = "x86_64")]
const NEAR: usize = 640;

/// Prefetches `LINES` cache lines of a stream that is read at `at`, far and near ahead of it; they may lie
/// past its end.
#[inline(always)]
pub(crate) fn prefetch_stream<const LINES: usize>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let mut line = 0;
        while line < LINES {
            // SAFETY: hints, whatever the addresses.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(FAR + line * 64).cast());
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(NEAR + line * 64).cast());
            }
            line += 1;
        }
    }
    // Elsewhere it was not measured.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches `LINES` cache lines of a stream that is read at `at`, near ahead of it.
#[inline(always)]
pub(crate) fn prefetch_near<const LINES: usize>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    prefetch(at.wrapping_add(NEAR), LINES * 64);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches the cache line at `at` into the second-level cache.
#[inline(always)]
pub(crate) fn prefetch_second_level(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches the cache lines of `bytes` bytes at `at` into the first-level cache.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}
