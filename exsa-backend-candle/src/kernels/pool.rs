//! Work on several threads.

use candle_core::utils::barrier_pool;
use std::ops::Range;

/// Multiplications below which waking other threads costs more than it saves: some ten microseconds' worth.
const WORTH_SHARING: usize = 1 << 18;

/// Calls `work` for parts of `0..items` on all threads of candle's pool, or for all of it on this one where there are few
/// `multiplications` in total.
pub(crate) fn share(items: usize, multiplications: usize, work: impl Fn(Range<usize>) + Sync) {
    if items <= 1 || multiplications < WORTH_SHARING {
        work(0..items);
    } else {
        barrier_pool().execute_chunked(items, work);
    }
}
