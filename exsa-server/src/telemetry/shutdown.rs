//! Deadline of the last exports, which also ends the exporter's waits.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Signals the exporter that the server is shutting down.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    deadline: Mutex<Option<Instant>>,
    begun: Condvar,
}

impl Shutdown {
    /// Begins the shutdown: exports have `limit` from now on. Only the first call counts.
    pub(super) fn begin(&self, limit: Duration) -> bool {
        let mut deadline = self.deadline.lock();
        let first = deadline.is_none();
        if first {
            *deadline = Instant::now().checked_add(limit);
            self.begun.notify_all();
        }
        first
    }

    /// Returns the export deadline, once the server is shutting down.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock()
    }

    /// Sleeps; returns early, with `false`, when the shutdown begins.
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
