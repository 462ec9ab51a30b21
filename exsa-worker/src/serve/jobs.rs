//! Jobs that must not delay the reader of the host's messages: parsing, tokenizing, compiling grammars.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Number of threads.
pub(super) const THREADS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// Job queue.
#[derive(Default)]
pub(super) struct Jobs {
    queue: Mutex<VecDeque<Job>>,
    ready: Condvar,
}

impl Jobs {
    pub(super) fn push(&self, job: impl FnOnce() + Send + 'static) {
        self.queue.lock().push_back(Box::new(job));
        self.ready.notify_one();
    }

    /// Runs jobs forever: the threads end with the process.
    pub(super) fn run(&self) {
        loop {
            let mut queue = self.queue.lock();
            let job = loop {
                match queue.pop_front() {
                    Some(job) => break job,
                    None => self.ready.wait(&mut queue),
                }
            };
            drop(queue);
            // A job answers its request even if it panics; this only keeps the thread alive.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}
