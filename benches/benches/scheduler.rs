//! One step of the scheduler alone: plan, then commit everything planned.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use exsa_core::backend::Capabilities;
use exsa_core::priority::UserId;
use exsa_core::queue::{FairOptions, FairQueue};
use exsa_core::schedule::{SchedRequest, Scheduler, SchedulerOptions, Work};
use std::time::Duration;

const PROMPT: usize = 100;
const BATCH: usize = 4096;
const USERS: u64 = 100;
/// Sequences beside those that run, for prefixes.
const IDLE: usize = 32;

/// A scheduler in the middle of its work: `running` requests decode, `waiting` wait.
struct Busy {
    scheduler: Scheduler,
    work: Vec<Work>,
    submitted: u64,
}

impl Busy {
    fn new(running: usize, waiting: usize) -> Self {
        // KV for however long the benchmark runs; it is only counted.
        let capabilities = Capabilities::new(running + IDLE, 1 << 50)
            .kv_tokens(1 << 50)
            .block_tokens(16)
            .batch_tokens(BATCH)
            .fork(true)
            .truncate(true)
            .save(true);
        let options =
            SchedulerOptions { batch_tokens_max: BATCH, running_max: running, ..SchedulerOptions::default() };
        let queue = Box::new(FairQueue::new(FairOptions::default()));
        let scheduler = Scheduler::new(&capabilities, options, queue);
        let mut busy = Self { scheduler, work: Vec::new(), submitted: 0 };
        (0..running + waiting).for_each(|_| busy.submit());
        while busy.step() != running {}
        busy
    }

    fn submit(&mut self) {
        let arrival = self.submitted;
        self.submitted += 1;
        // Deadlines are kept in order too; none comes up.
        let deadline = Some(Duration::from_secs(1_000_000 + arrival));
        let mut request = SchedRequest::new(arrival, vec![arrival as u32; PROMPT], usize::MAX);
        request.deadline = deadline;
        request.user = UserId(arrival % USERS);
        self.scheduler.enqueue(request, Duration::ZERO);
    }

    /// Plans and commits; how many sequences were given a token.
    fn step(&mut self) -> usize {
        let plan = self.scheduler.plan(Duration::ZERO);
        self.work.clear();
        self.work.extend_from_slice(&plan.work);
        self.work.iter().for_each(|work| {
            self.scheduler.commit(work, &[1][..work.rows]);
        });
        self.work.iter().filter(|work| work.rows > 0).count()
    }

    /// The same, with the oldest request ending and another one arriving.
    fn step_with_change(&mut self) -> usize {
        if let Some(oldest) = self.work.iter().map(|work| work.id).min() {
            self.scheduler.finish(oldest);
            self.submit();
        }
        self.step()
    }
}

fn scheduler(criterion: &mut Criterion) {
    for (name, step) in [("decode", Busy::step as fn(&mut Busy) -> usize), ("change", Busy::step_with_change)]
    {
        let mut group = criterion.benchmark_group(format!("scheduler/{name}"));
        for running in [16, 64, 256] {
            group.throughput(Throughput::Elements(running as u64));
            for waiting in [0, 1_000, 10_000, 100_000] {
                let id = BenchmarkId::new(format!("{running}-running"), format!("{waiting}-waiting"));
                group.bench_function(id, |bencher| {
                    let mut busy = Busy::new(running, waiting);
                    bencher.iter(|| step(&mut busy));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, scheduler);
criterion_main!(benches);
