//! Asking memory for weights, keys and values before they are used.
//!
//! Left to itself a processor looks ahead within a page and by a few lines, which keeps fewer reads in flight than memory
//! can serve. So kernels ask twice: far ahead for the second-level cache, and near for the first.

/// Bytes from a use to what is asked for from memory.
#[cfg(target_arch = "x86_64")]
const FAR: usize = 8192;

/// Bytes from a use to what is taken from the second-level cache into the first.
#[cfg(target_arch = "x86_64")]
const NEAR: usize = 640;

/// Asks for the `LINES` cache lines that come so far after `at`, which may be past the end of what there is.
#[inline(always)]
pub(crate) fn ask<const LINES: usize>(at: *const u8) {
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

/// Asks for the cache lines of `bytes` bytes at `at`, for soon.
#[inline(always)]
pub(crate) fn bring(at: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}
