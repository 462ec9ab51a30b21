//! The scheduler does not allocate in the steady state: 256 streams decode, 10,000 requests wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::Capabilities;
use exsa_core::priority::{Priority, UserId};
use exsa_core::queue::{FairOptions, FairQueue};
use exsa_core::schedule::{SchedRequest, Scheduler, SchedulerOptions, StepCost, Work};
use exsa_core::speculate::{Proposer, Speculation};
use exsa_core::{RequestId, TokenId};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The system's allocator, counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `ptr` came from `System` with this layout, and the caller keeps to the rest of the
        // contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RUNNING: usize = 256;
const WAITING: usize = 10_000;

fn submit(scheduler: &mut Scheduler, id: u64) {
    let mut request = SchedRequest::new(id, (0..100).map(|i| (id as u32) << 8 | i).collect(), 2000);
    (request.user, request.priority) = (UserId(id % 100), Priority::ALL[id as usize % 3]);
    request.deadline = Some(Duration::from_secs(1_000_000 + id));
    scheduler.enqueue(request, Duration::ZERO);
}

fn step(scheduler: &mut Scheduler, now: Duration, work: &mut Vec<Work>) {
    work.clear();
    work.extend_from_slice(&scheduler.plan(now).work);
    for item in work.iter() {
        scheduler.commit(item, &[1][..item.rows]);
    }
    scheduler.observe(&StepCost::of(work, Duration::from_millis(20)));
}

/// Drafts the same token repeatedly.
#[derive(Debug)]
struct Repeat;

impl Proposer for Repeat {
    fn propose(&mut self, _: RequestId, _: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        drafts.resize(max, 1);
    }
}

#[test]
fn speculating_takes_no_memory() {
    // Every draft that fits, and those of the adaptive budget.
    for adaptive in [false, true] {
        speculate(Speculation::new(Repeat).drafts_max(3).adaptive(adaptive), adaptive);
    }
}

fn speculate(mut speculation: Speculation, adaptive: bool) {
    let mut scheduler = scheduler();
    (0..RUNNING + 100).for_each(|id| submit(&mut scheduler, id as u64));
    let mut work: Vec<Work> = Vec::with_capacity(RUNNING);
    let mut now = Duration::ZERO;
    let mut run = |scheduler: &mut Scheduler, steps: usize| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for i in 0..steps {
            now += Duration::from_millis(20);
            scheduler.plan(now);
            scheduler.plan_drafts(&mut speculation, &mut ());
            work.clear();
            work.extend_from_slice(&scheduler.last_plan().work);
            for item in &work {
                // All are accepted, some, or none.
                let generated: &[TokenId] = [&[1, 1, 1, 1][..], &[1, 2], &[2]][i % 3];
                scheduler.commit(item, &generated[..item.rows.min(generated.len())]);
            }
            let rows = work.iter().map(|work| work.len as u64).sum::<u64>();
            scheduler.observe(&StepCost::of(&work, Duration::from_micros(20_000 + 10 * rows)));
        }
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    run(&mut scheduler, 100);
    let steady = run(&mut scheduler, 500);
    let counters = scheduler.stats();
    assert_eq!(scheduler.running_len(), RUNNING);
    let share = if adaptive { 0.3 } else { 1.0 };
    let drafted = counters.drafted_tokens as f64 / (500 * 3 * RUNNING) as f64;
    assert!(drafted > share && counters.accepted_drafts > 0, "{counters:?}");
    assert_eq!(steady, 0, "allocations in 500 steps of {RUNNING} decodes with 3 drafts each");
}

fn scheduler() -> Scheduler {
    let capabilities = Capabilities::new(RUNNING + 32, 1 << 20)
        .kv_tokens(1 << 20)
        .block_tokens(16)
        .batch_tokens(4096)
        .fork(true)
        .truncate(true)
        .save(true);
    let options =
        SchedulerOptions { batch_tokens_max: 4096, running_max: RUNNING, ..SchedulerOptions::default() };
    let queue = Box::new(FairQueue::new(FairOptions::default()));
    Scheduler::new(&capabilities, options, queue)
}

#[test]
fn decoding_takes_no_memory() {
    let mut scheduler = scheduler();
    let mut next = 0;
    for _ in 0..RUNNING + WAITING {
        submit(&mut scheduler, next);
        next += 1;
    }
    let mut now = Duration::ZERO;
    let mut work = Vec::with_capacity(RUNNING);
    let mut run = |scheduler: &mut Scheduler, steps: usize, work: &mut Vec<Work>| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..steps {
            now += Duration::from_millis(20);
            step(scheduler, now, work);
        }
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    run(&mut scheduler, 100, &mut work);
    assert_eq!((scheduler.running_len(), work.len()), (RUNNING, RUNNING));
    let steady = run(&mut scheduler, 1000, &mut work);
    println!("{steady} allocations in 1000 steps of {RUNNING} decodes with {WAITING} waiting");

    // One request ends and one arrives with each step: told, not promised.
    let mut changing = 0;
    for _ in 0..300 {
        let oldest = work.iter().map(|work| work.id).min().unwrap();
        scheduler.finish(oldest);
        submit(&mut scheduler, next);
        next += 1;
        changing += run(&mut scheduler, 1, &mut work);
    }
    println!("{:.1} allocations a step with one request ending and one admitted", changing as f64 / 300.0);
    assert_eq!(steady, 0);
}
