//! The limit of the last exports, which ends waits of the exporter.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Tells the exporter when the server ends.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    deadline: Mutex<Option<Instant>>,
    begun: Condvar,
}

impl Shutdown {
    /// Begins the end: exports have `limit` from now on. Only the first call counts.
    pub(super) fn begin(&self, limit: Duration) -> bool {
        let mut deadline = self.deadline.lock();
        let first = deadline.is_none();
        if first {
            *deadline = Instant::now().checked_add(limit);
            self.begun.notify_all();
        }
        first
    }

    /// The deadline of exports, once the server ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock()
    }

    /// Waits; returns early, with `false`, when the server ends.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut deadline = self.deadline.lock();
        while deadline.is_none() {
            if self.begun.wait_until(&mut deadline, end).timed_out() {
                return deadline.is_none();
            }
        }
        false
    }
}
