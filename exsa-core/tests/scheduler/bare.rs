//! The scheduler alone, without engine and session: requests are just lengths, and time advances with each
//! step.

use exsa_core::backend::Capabilities;
use exsa_core::priority::{Priority, UserId};
use exsa_core::queue::{FairOptions, FairQueue, QueueOrder, Service};
use exsa_core::schedule::{SchedRequest, Scheduler, SchedulerOptions};
use exsa_core::token::RequestId;
use std::collections::HashMap;
use std::time::Duration;

/// SplitMix64: all randomness of a workload comes from its seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.within(1, 100) <= percent
    }
}

/// A session that can do everything.
pub fn capabilities(kv_tokens: usize, block_tokens: usize, sequences_max: usize) -> Capabilities {
    Capabilities::new(sequences_max, kv_tokens)
        .kv_tokens(kv_tokens / block_tokens * block_tokens)
        .block_tokens(block_tokens)
        .batch_tokens(usize::MAX)
        .fork(true)
        .truncate(true)
        .save(true)
}

/// A submitted request.
pub struct Live {
    pub user: UserId,
    pub priority: Priority,
    prompt: usize,
    /// Remaining tokens of its answer.
    left: usize,
    pub running: bool,
    pub preemptions: u32,
}

/// A scheduler under load.
pub struct Bare {
    pub scheduler: Scheduler,
    pub now: Duration,
    per_pass: Duration,
    per_token: Duration,
    pub live: HashMap<RequestId, Live>,
    /// Service charged to the users.
    pub served: HashMap<UserId, f64>,
    pub finished: Vec<(RequestId, Priority, Duration)>,
    next: u64,
}

impl Bare {
    /// A fair queue before a scheduler of these options.
    pub fn new(capabilities: &Capabilities, options: SchedulerOptions) -> Self {
        Self::with_queue(capabilities, options, Box::new(FairQueue::new(FairOptions::default())))
    }

    /// Any queue.
    pub fn with_queue(
        capabilities: &Capabilities,
        options: SchedulerOptions,
        queue: Box<dyn QueueOrder>,
    ) -> Self {
        Self {
            scheduler: Scheduler::new(capabilities, options, queue),
            now: Duration::ZERO,
            per_pass: Duration::from_millis(5),
            per_token: Duration::from_millis(1),
            live: HashMap::new(),
            served: HashMap::new(),
            finished: Vec::new(),
            next: 0,
        }
    }

    /// A request with a prompt of `prompt` unshared tokens and an answer of `answer` tokens.
    pub fn submit(&mut self, user: u64, priority: Priority, prompt: usize, answer: usize) -> RequestId {
        let id = self.next;
        let tokens: Vec<u32> = (0..prompt as u32).map(|i| if i == 0 { id as u32 } else { i }).collect();
        self.submit_tokens(user, priority, tokens, answer)
    }

    /// A request of these tokens.
    pub fn submit_tokens(
        &mut self,
        user: u64,
        priority: Priority,
        tokens: Vec<u32>,
        answer: usize,
    ) -> RequestId {
        let tokens_max = tokens.len() + answer;
        let mut request = SchedRequest::new(self.next, tokens, tokens_max);
        (request.user, request.priority) = (UserId(user), priority);
        self.next += 1;
        let (id, user, prompt) = (request.id, request.user, request.prompt_len);
        self.live.insert(id, Live { user, priority, prompt, left: answer, running: false, preemptions: 0 });
        self.scheduler.enqueue(request, self.now);
        id
    }

    /// Requests of a user that wait.
    pub fn waiting(&self, user: u64) -> usize {
        self.live.values().filter(|live| live.user == UserId(user) && !live.running).count()
    }

    /// One step. Whether anything was computed.
    pub fn step(&mut self) -> bool {
        self.scheduler.plan(self.now);
        self.scheduler.check().unwrap();
        let plan = self.scheduler.last_plan();
        let work = plan.work.clone();
        for id in &plan.preempted {
            let live = self.live.get_mut(id).unwrap();
            live.running = false;
            live.preemptions += 1;
        }
        let admitted: Vec<_> = plan.admitted.iter().filter(|a| !a.again).map(|a| a.id).collect();
        for admitted in &plan.admitted {
            self.live.get_mut(&admitted.id).unwrap().running = !plan.preempted.contains(&admitted.id);
        }
        // The whole prompt is served when it is admitted, as it is charged.
        for id in admitted {
            self.serve(id, self.live[&id].prompt, 0);
        }
        let tokens: usize = work.iter().map(|item| item.len).sum();
        self.now += self.per_pass + self.per_token * tokens as u32;
        for item in &work {
            self.scheduler.commit(item, &[7][..item.rows]);
            if item.rows == 0 {
                continue;
            }
            self.serve(item.id, 0, 1);
            let live = self.live.get_mut(&item.id).unwrap();
            live.left -= 1;
            if live.left == 0 {
                let live = self.live.remove(&item.id).unwrap();
                self.finished.push((item.id, live.priority, self.now));
                self.scheduler.finish(item.id);
            }
        }
        !work.is_empty()
    }

    fn serve(&mut self, id: RequestId, input: usize, output: usize) {
        let Live { user, priority, .. } = self.live[&id];
        *self.served.entry(user).or_default() += Service { priority, user, input, output }.cost();
    }
}

/// Jain's fairness index: 1 if all have the same share, 1/n if one has everything.
pub fn jain(values: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) = (values.iter().sum(), values.iter().map(|x| x * x).sum());
    sum * sum / (values.len() as f64 * squares)
}
