//! A team of threads that a session owns: spin, then park.
//!
//! A forward pass is hundreds of small parallel steps, microseconds apart; waking a parked thread takes longer than
//! most of them. So helpers spin for a while after each step, and park when nothing comes: idle costs no CPU.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};

/// Spins of a helper before it parks, about a hundred microseconds.
const SPINS: u32 = 20_000;

type Job<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// Number of the step; a helper that sees it change runs the job.
    step: AtomicUsize,
    /// Helpers that have not finished the step.
    busy: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
    job: UnsafeCell<Option<&'static Job<'static>>>,
}

// SAFETY: `job` is written by the team's owner alone, while no helper is busy, and read by helpers only after they saw
// the step change (release, acquire) and before they count themselves out.
unsafe impl Sync for Shared {}

/// Threads that work together on one job at a time. The thread that calls is one of them.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<(Thread, JoinHandle<()>)>,
}

impl Team {
    /// A team of `threads` threads in all, the caller's included.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            step: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            job: UnsafeCell::new(None),
        });
        let mut team = Self { shared, helpers: Vec::new() };
        for index in 1..threads {
            let shared = team.shared.clone();
            let builder = std::thread::Builder::new().name(format!("exsa-compute-{index}"));
            let handle = builder.spawn(move || help(&shared, index))?;
            team.helpers.push((handle.thread().clone(), handle));
        }
        Ok(team)
    }

    /// Threads in the team.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `job(index)` on every thread, `index` from 0, and returns when all are done. A panic on any of them goes
    /// on here.
    pub fn run(&mut self, job: impl Fn(usize) + Sync) {
        if self.helpers.is_empty() {
            return job(0);
        }
        let erased: &Job<'_> = &job;
        // SAFETY: the reference outlives its use: this function returns only after every helper has counted itself
        // out of the step, also when the job panics here. `&mut self` makes it the only job.
        unsafe {
            *self.shared.job.get() = Some(std::mem::transmute::<&Job<'_>, &'static Job<'static>>(erased));
        }
        self.shared.busy.store(self.helpers.len(), Ordering::Relaxed);
        self.shared.step.fetch_add(1, Ordering::Release);
        for (thread, _) in &self.helpers {
            thread.unpark();
        }
        let mine = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0u32;
        while self.shared.busy.load(Ordering::Acquire) > 0 {
            spins += 1;
            // With more threads than cores the one waited for may need this core.
            if spins > SPINS { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        if self.shared.panicked.swap(false, Ordering::AcqRel) {
            resume_unwind(Box::new("a compute thread panicked"));
        }
    }

    /// Splits `0..n` into runs of `grain` and hands them out as threads get free.
    pub fn for_each(&mut self, n: usize, grain: usize, work: impl Fn(Range<usize>) + Sync) {
        let grain = grain.max(1);
        if n <= grain {
            return work(0..n);
        }
        let next = AtomicUsize::new(0);
        self.run(|_| {
            loop {
                let start = next.fetch_add(grain, Ordering::Relaxed);
                if start >= n {
                    break;
                }
                work(start..n.min(start + grain));
            }
        });
    }
}

impl Team {
    /// Splits `out` into runs of `len` values, the last perhaps shorter, and hands them out with their index.
    pub fn for_each_run<T: Send>(
        &mut self,
        out: &mut [T],
        len: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (total, len) = (out.len(), len.max(1));
        let target = Target(out.as_mut_ptr());
        let runs = total.div_ceil(len);
        let grain = (runs / (self.threads() * 8)).max(1);
        self.for_each(runs, grain, |range| {
            for i in range {
                let (start, end) = (i * len, total.min((i + 1) * len));
                // SAFETY: the runs are disjoint parts of `out`, which is borrowed until all are done, and each index
                // is handed out once.
                let run = unsafe { std::slice::from_raw_parts_mut(target.at(start), end - start) };
                work(i, run);
            }
        });
    }
}

/// A pointer that threads share to write disjoint places.
pub(super) struct Target<T>(pub(super) *mut T);

// SAFETY: whoever writes through it promises to write where nobody else does.
unsafe impl<T: Send> Sync for Target<T> {}

impl<T> Target<T> {
    /// The place `i` values on.
    pub(super) fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for (thread, handle) in self.helpers.drain(..) {
            thread.unpark();
            // A helper catches the panics of its jobs.
            let _ = handle.join();
        }
    }
}

fn help(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        let step = loop {
            let step = shared.step.load(Ordering::Acquire);
            if step != seen {
                break step;
            }
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::park();
                spins = 0;
            }
        };
        seen = step;
        // SAFETY: the step changed, so the owner has written the job and waits until this helper counts itself out.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| job(index))).is_err()
        {
            shared.panicked.store(true, Ordering::Release);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_item_is_worked_on_once() {
        for threads in [1, 2, 5] {
            let mut team = Team::new(threads).unwrap();
            for n in [0, 1, 7, 1000] {
                let hits: Vec<_> = (0..n).map(|_| AtomicU64::new(0)).collect();
                team.for_each(n, 3, |range| {
                    for i in range {
                        hits[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn runs_are_disjoint_and_complete() {
        let mut team = Team::new(3).unwrap();
        for (n, len) in [(0, 4), (3, 4), (100, 7), (1000, 1)] {
            let mut out = vec![0usize; n];
            team.for_each_run(&mut out, len, |i, run| run.iter_mut().for_each(|value| *value += i + 1));
            assert!(out.iter().enumerate().all(|(at, value)| *value == at / len + 1));
        }
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(3).unwrap();
        for culprit in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| team.run(|index| assert_ne!(index, culprit))));
            assert!(result.is_err());
        }
        let sum = AtomicU64::new(0);
        team.run(|index| {
            sum.fetch_add(index as u64, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 3);
    }

    #[test]
    fn helpers_that_parked_wake_up() {
        let mut team = Team::new(2).unwrap();
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(30));
            let seen = AtomicU64::new(0);
            team.run(|_| {
                seen.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(seen.into_inner(), 2);
        }
    }
}
