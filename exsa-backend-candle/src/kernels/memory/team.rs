//! A team of threads for one pass at a time: spin, then park.
//!
//! A forward pass is hundreds of small parallel steps, microseconds apart; waking a parked thread takes
//! longer than most of them. So helpers spin for a while after each step, and park when nothing comes: idle
//! costs no CPU.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a helper looks out for the next step before it parks: longer than what an engine does between two
/// passes.
const SPIN: Duration = Duration::from_micros(200);

/// Spins of a helper between two reads of the clock.
const SPINS_PER_CLOCK_READ: u32 = 64;

/// Spins of the caller, waiting for its helpers, before it yields its core.
const SPINS_BEFORE_YIELD: u32 = 2_000;

/// Runs of a step for each thread: small ones cost little, and a slower thread must not keep the others
/// waiting at the end.
const RUNS_PER_THREAD: usize = 8;

/// In a step's state: helpers may join it.
const OPEN: usize = 1 << 15;

/// In a step's state: the number of helpers that joined it.
const JOINED: usize = OPEN - 1;

/// Increment of the state for the next step.
const STEP: usize = 1 << 16;

type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// A value padded to cache lines of its own, against false sharing with its neighbours.
#[repr(align(128))]
struct CachePadded<T>(T);

/// Items of a step that a thread has left to hand out: they begin at `next`, and end at `end`.
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
}

struct Shared {
    /// Number of the step, whether it is open, and how many joined it.
    state: CachePadded<AtomicUsize>,
    /// Helpers that have finished the step, and before the first one: that have started.
    left: CachePadded<AtomicUsize>,
    /// One for each thread.
    shares: Box<[CachePadded<Share>]>,
    /// One for each helper: it is about to park, or parks.
    parked: Box<[AtomicBool]>,
    stop: AtomicBool,
    panicked: AtomicBool,
    job: UnsafeCell<Option<&'static Job<'static>>>,
}

// SAFETY: `job` is written by the team's owner alone, while no step is open and all who joined the last one
// have left, and read by helpers only after they joined an open step.
unsafe impl Sync for Shared {}

/// Threads that work together on one job at a time. The thread that calls is one of them.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<(Thread, JoinHandle<()>)>,
}

impl Team {
    /// A team of `threads` threads in all, the caller's included, fewer than 2^15.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let share = |_| CachePadded(Share { next: AtomicUsize::new(0), end: AtomicUsize::new(0) });
        let shared = Arc::new(Shared {
            state: CachePadded(AtomicUsize::new(0)),
            left: CachePadded(AtomicUsize::new(0)),
            shares: (0..threads.max(1)).map(share).collect(),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
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
        // Threads allocate for themselves while they start, and not in the middle of a pass.
        while team.shared.left.0.load(Ordering::Acquire) < team.helpers.len() {
            std::thread::yield_now();
        }
        Ok(team)
    }

    /// Threads in the team.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Items of a run where `n` items are shared out in [`RUNS_PER_THREAD`] runs for each thread; at least
    /// one.
    pub fn grain(&self, n: usize) -> usize {
        (n / (self.threads() * RUNS_PER_THREAD)).max(1)
    }

    /// Runs `job(0)` here and `job(index)` on those of the others that come before it has ended, and returns
    /// when all are done. A helper that the system does not let run is not waited for. A panic on any of them
    /// goes on here.
    fn run(&mut self, job: impl Fn(usize) + Sync) {
        if self.helpers.is_empty() {
            return job(0);
        }
        let shared = &*self.shared;
        let erased: &Job<'_> = &job;
        // SAFETY: the reference outlives its use: this function returns only after the step is closed and
        // every helper that joined it has left, also when the job panics here. `&mut self` makes it the only
        // job.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<&Job<'_>, &'static Job<'static>>(erased));
        }
        shared.left.0.store(0, Ordering::Relaxed);
        let step = (shared.state.0.load(Ordering::Relaxed) / STEP).wrapping_add(1);
        // In one order with what helpers do before they park: either they see the step, or they are seen
        // parking.
        shared.state.0.store(step.wrapping_mul(STEP) | OPEN, Ordering::SeqCst);
        for ((thread, _), parked) in self.helpers.iter().zip(&shared.parked) {
            if parked.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| job(0)));
        let joined = shared.state.0.fetch_and(!OPEN, Ordering::AcqRel) & JOINED;
        let mut looks = 0u32;
        while shared.left.0.load(Ordering::Acquire) < joined {
            looks = looks.saturating_add(1);
            // With more threads than cores the one waited for may need this core.
            if looks > SPINS_BEFORE_YIELD { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::AcqRel) {
            resume_unwind(Box::new("a compute thread panicked"));
        }
    }

    /// Splits `0..n` into runs of at most `grain` items and hands them out: to each thread from a part of its
    /// own, so that it reads memory in order, and from the others' parts when its own is done.
    pub fn for_each(&mut self, n: usize, grain: usize, work: impl Fn(Range<usize>) + Sync) {
        self.for_each_on(n, grain, |_, range| work(range));
    }

    /// The same, with a `state` for each thread that has work to do: `states` holds as many as there are
    /// threads.
    pub fn for_each_with<T: Send>(
        &mut self,
        states: &mut [T],
        n: usize,
        grain: usize,
        work: impl Fn(&mut T, Range<usize>) + Sync,
    ) {
        assert!(states.len() >= self.threads(), "a state for every thread");
        let states = Target(states.as_mut_ptr());
        self.for_each_on(n, grain, |thread, range| {
            // SAFETY: there is a state of that index, and a thread does one run at a time.
            work(unsafe { &mut *states.at(thread) }, range);
        });
    }

    /// As [`for_each`](Self::for_each), and tells the index of the thread.
    fn for_each_on(&mut self, n: usize, grain: usize, work: impl Fn(usize, Range<usize>) + Sync) {
        let grain = grain.max(1);
        if n <= grain || self.helpers.is_empty() {
            return work(0, 0..n);
        }
        let (shared, threads) = (Arc::clone(&self.shared), self.threads());
        let start = |thread: usize| (n * thread / threads).next_multiple_of(grain).min(n);
        for (thread, CachePadded(share)) in shared.shares.iter().enumerate() {
            share.next.store(start(thread), Ordering::Relaxed);
            share.end.store(if thread + 1 == threads { n } else { start(thread + 1) }, Ordering::Relaxed);
        }
        self.run(|thread| {
            for CachePadded(share) in shared.shares[thread..].iter().chain(&shared.shares[..thread]) {
                let end = share.end.load(Ordering::Relaxed);
                while share.next.load(Ordering::Relaxed) < end {
                    let first = share.next.fetch_add(grain, Ordering::Relaxed);
                    if first >= end {
                        break;
                    }
                    work(thread, first..end.min(first + grain));
                }
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
        let grain = self.grain(runs);
        self.for_each(runs, grain, |range| {
            for i in range {
                let (start, end) = (i * len, total.min((i + 1) * len));
                // SAFETY: the runs are disjoint parts of `out`, which is borrowed until all are done, and
                // each index is handed out once.
                let run = unsafe { std::slice::from_raw_parts_mut(target.at(start), end - start) };
                work(i, run);
            }
        });
    }
}

/// A pointer that threads share to write disjoint places.
pub(crate) struct Target<T>(pub(crate) *mut T);

// SAFETY: whoever writes through it promises to write where nobody else does.
unsafe impl<T: Send> Sync for Target<T> {}

impl<T> Target<T> {
    /// Row `i` of a matrix of `width` columns.
    ///
    /// # Safety
    ///
    /// The row is there for as long as the result is used, and nobody else uses it.
    pub(crate) unsafe fn row<'a>(&self, i: usize, width: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(i * width), width) }
    }

    /// The place `i` values on.
    pub(crate) fn at(&self, i: usize) -> *mut T {
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
    shared.left.0.fetch_add(1, Ordering::Release);
    let mut seen = 0;
    while let Some(step) = next_step(shared, index, seen) {
        seen = step;
        if !join(shared, step) {
            continue;
        }
        // SAFETY: the step is joined, so the owner has written the job and waits until this helper leaves.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| job(index))).is_err()
        {
            shared.panicked.store(true, Ordering::Release);
        }
        shared.left.0.fetch_add(1, Ordering::Release);
    }
}

/// Waits for an open step other than `seen`, and returns its number; `None` when the team is dissolved.
fn next_step(shared: &Shared, index: usize, seen: usize) -> Option<usize> {
    let look = |order| {
        let state = shared.state.0.load(order);
        (state / STEP != seen && state & OPEN != 0).then_some(state / STEP)
    };
    let begin = Instant::now();
    while begin.elapsed() < SPIN {
        for _ in 0..SPINS_PER_CLOCK_READ {
            if let Some(step) = look(Ordering::Acquire) {
                return Some(step);
            }
            std::hint::spin_loop();
        }
        if shared.stop.load(Ordering::Acquire) {
            return None;
        }
    }
    let parked = &shared.parked[index - 1];
    parked.store(true, Ordering::SeqCst);
    let found = loop {
        let step = look(Ordering::SeqCst);
        if step.is_some() || shared.stop.load(Ordering::SeqCst) {
            break step;
        }
        std::thread::park();
    };
    parked.store(false, Ordering::Relaxed);
    found
}

/// Joins `step`, if it is still open.
fn join(shared: &Shared, step: usize) -> bool {
    let joined = |state: usize| (state / STEP == step && state & OPEN != 0).then_some(state + 1);
    shared.state.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, joined).is_ok()
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
    fn every_thread_has_its_state() {
        let mut team = Team::new(3).unwrap();
        let mut sums = [0usize; 3];
        for _ in 0..200 {
            team.for_each_with(&mut sums, 100, 1, |sum, range| *sum += range.sum::<usize>());
        }
        assert_eq!(sums.iter().sum::<usize>(), 200 * 99 * 100 / 2);
    }

    /// Runs a step in which the threads of `team` all take part; `visit` is called on each with its index.
    fn together(team: &mut Team, visit: impl Fn(usize) + Sync) {
        let threads = team.threads();
        let arrived = AtomicUsize::new(0);
        team.run(|index| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < threads {
                std::thread::yield_now();
            }
            visit(index);
        });
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(3).unwrap();
        for culprit in 0..3 {
            let step = || together(&mut team, |index| assert_ne!(index, culprit));
            assert!(catch_unwind(AssertUnwindSafe(step)).is_err());
        }
        let sum = AtomicU64::new(0);
        together(&mut team, |index| {
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
            together(&mut team, |_| {
                seen.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(seen.into_inner(), 2);
        }
    }

    /// Steps that are shorter than it takes a helper to come are not held up by it, and harm nothing.
    #[test]
    fn many_short_steps() {
        let mut team = Team::new(4).unwrap();
        for n in 0..20_000usize {
            let sum = AtomicUsize::new(0);
            team.for_each(n % 9, 1, |range| {
                sum.fetch_add(range.len(), Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), n % 9);
        }
    }

    /// Processor time of this process: user and system, in clock ticks of 10 ms.
    #[cfg(target_os = "linux")]
    fn ticks() -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Under nextest the process runs this test alone; with other tests beside it in the process, it says
    /// nothing.
    #[cfg(target_os = "linux")]
    #[test]
    fn idle_teams_cost_no_processor_time() {
        let mut team = Team::new(4).unwrap();
        team.for_each(100, 1, |_| {});
        std::thread::sleep(Duration::from_millis(50));
        let before = ticks();
        std::thread::sleep(Duration::from_secs(2));
        let used = ticks() - before;
        if std::env::var_os("NEXTEST").is_some() {
            assert!(used <= 10, "{used} ticks of 10 ms in two idle seconds");
        }
    }
}
