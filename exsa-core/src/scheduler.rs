//! Decides what the next forward pass computes. Performs no work and knows no clock.
//!
//! Arrivals, results and the time go in by methods, a [`Plan`] comes out. Continuous batching in the manner of
//! Orca (Yu et al., OSDI 2022) with chunked prefill (Sarathi-Serve, Agrawal et al., OSDI 2024): each step takes
//! every running decode first, then chunks of prompts within a token budget, then admits from the queue.

use crate::backend::Capabilities;
use crate::kv::KvAccount;
use crate::queue::QueueOrder;
use crate::token::SeqId;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Names a request within one engine; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What the scheduler has to know of a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The request.
    pub id: RequestId,
    /// Place in the order of arrival; kept when the request is preempted.
    pub rank: u64,
    /// Tokens known: the prompt, and after a preemption what was generated as well.
    pub tokens: usize,
    /// When the request ends unfinished, in the engine's time.
    pub deadline: Option<Duration>,
}

/// One sequence's share of a step: `len` tokens from position `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The request.
    pub id: RequestId,
    /// Its sequence in the session.
    pub seq: SeqId,
    /// Position of the first token to compute.
    pub start: usize,
    /// Tokens to compute, at least 1.
    pub len: usize,
    /// Whether the last of them is the last token known, so that a new one is sampled from its logits.
    pub sample: bool,
}

/// What happens in the next step.
#[derive(Debug, Default)]
pub struct Plan {
    /// The batch.
    pub work: Vec<Work>,
    /// Sequences to release in the session before the pass; their requests wait again.
    pub preempted: Vec<(RequestId, SeqId)>,
    /// Requests that were given a sequence.
    pub admitted: Vec<(RequestId, SeqId)>,
    /// Requests past their deadline; to be [removed](Scheduler::remove) by the caller.
    pub expired: Vec<RequestId>,
    /// Requests that need more KV than there is; to be [removed](Scheduler::remove) by the caller.
    pub exhausted: Vec<RequestId>,
}

impl Plan {
    /// Whether the step would do nothing at all.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
            && self.preempted.is_empty()
            && self.expired.is_empty()
            && self.exhausted.is_empty()
    }

    fn clear(&mut self) {
        self.work.clear();
        self.preempted.clear();
        self.admitted.clear();
        self.expired.clear();
        self.exhausted.clear();
    }
}

/// Limits that the scheduler keeps.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerLimits {
    /// Tokens in a batch.
    pub batch_tokens_max: usize,
    /// Tokens that one sequence's prompt takes of a batch.
    pub prefill_chunk_max: usize,
    /// Sequences that run at one time.
    pub running_max: usize,
}

/// How long a paused request keeps its sequence from others that wait for one: a consumer that is but a little
/// slow shall not pay with a recomputed prompt.
pub const PAUSE_GRACE: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Running {
    ticket: Ticket,
    seq: SeqId,
    /// Tokens whose KV the session holds.
    computed: usize,
    /// Since when the sequence is given no work. It keeps its KV while nobody else needs it.
    paused: Option<Duration>,
}

impl Running {
    fn remaining(&self) -> usize {
        self.ticket.tokens - self.computed
    }

    fn is_paused(&self) -> bool {
        self.paused.is_some()
    }
}

/// The scheduler of one engine.
pub struct Scheduler {
    limits: SchedulerLimits,
    kv: KvAccount,
    queue: Box<dyn QueueOrder>,
    /// By sequence id.
    running: Vec<Option<Running>>,
    /// The running sequences by rank.
    order: Vec<SeqId>,
    seqs: HashMap<RequestId, SeqId>,
    /// Preempted while paused: back in the queue once resumed.
    parked: HashMap<RequestId, Ticket>,
    deadlines: BTreeSet<(Duration, RequestId)>,
    plan: Plan,
    preemptions: u64,
}

impl Scheduler {
    /// A scheduler for a session of these capabilities.
    pub fn new(capabilities: &Capabilities, limits: SchedulerLimits, queue: Box<dyn QueueOrder>) -> Self {
        let limits = SchedulerLimits {
            batch_tokens_max: limits.batch_tokens_max.clamp(1, capabilities.batch_tokens_max.max(1)),
            prefill_chunk_max: limits.prefill_chunk_max.max(1),
            running_max: limits.running_max.clamp(1, capabilities.sequences_max.max(1)),
        };
        let mut running = Vec::new();
        running.resize_with(capabilities.sequences_max, || None);
        Self {
            limits,
            kv: KvAccount::new(capabilities),
            queue,
            running,
            order: Vec::with_capacity(capabilities.sequences_max),
            seqs: HashMap::new(),
            parked: HashMap::new(),
            deadlines: BTreeSet::new(),
            plan: Plan::default(),
            preemptions: 0,
        }
    }

    /// Adds a request to the queue.
    pub fn enqueue(&mut self, ticket: Ticket) {
        if let Some(deadline) = ticket.deadline {
            self.deadlines.insert((deadline, ticket.id));
        }
        self.queue.push(ticket);
    }

    /// Plans the next step for the time `now`.
    pub fn plan(&mut self, now: Duration) -> &Plan {
        self.plan.clear();
        self.expire(now);
        let mut budget = self.limits.batch_tokens_max;
        self.plan_decodes(&mut budget);
        self.plan_prefills(&mut budget);
        self.admit(now, &mut budget);
        &self.plan
    }

    /// The plan made last.
    pub fn last_plan(&self) -> &Plan {
        &self.plan
    }

    /// Takes note that `work` was computed, and whether a token was appended to its sequence.
    pub fn commit(&mut self, work: &Work, appended: bool) {
        if let Some(running) = self.running_mut(work.seq) {
            debug_assert_eq!(running.computed, work.start);
            running.computed += work.len;
            running.ticket.tokens += usize::from(appended);
        }
    }

    /// Takes a request out, wherever it is. Returns the sequence it held, to be released in the session.
    pub fn remove(&mut self, id: RequestId) -> Option<SeqId> {
        let (ticket, seq) = match self.seqs.get(&id).copied() {
            Some(seq) => (self.stop_running(seq)?.ticket, Some(seq)),
            None => (self.queue.remove(id).or_else(|| self.parked.remove(&id))?, None),
        };
        if let Some(deadline) = ticket.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        seq
    }

    /// Sends a running request back to the queue with its rank; its sequence, to be released in the session.
    pub fn preempt(&mut self, id: RequestId) -> Option<SeqId> {
        let seq = *self.seqs.get(&id)?;
        let running = self.stop_running(seq)?;
        self.preemptions += 1;
        if running.is_paused() {
            self.parked.insert(id, running.ticket);
        } else {
            self.queue.push(running.ticket);
        }
        Some(seq)
    }

    /// Gives a running request no more work, from the time `now` until it is resumed.
    pub fn pause(&mut self, id: RequestId, now: Duration) {
        if let Some(running) = self.seqs.get(&id).copied().and_then(|seq| self.running_mut(seq)) {
            running.paused.get_or_insert(now);
        }
    }

    /// Lets a paused request go on.
    pub fn resume(&mut self, id: RequestId) {
        if let Some(ticket) = self.parked.remove(&id) {
            self.queue.push(ticket);
        } else if let Some(running) = self.seqs.get(&id).copied().and_then(|seq| self.running_mut(seq)) {
            running.paused = None;
        }
    }

    /// Requests that hold a sequence.
    pub fn running_len(&self) -> usize {
        self.order.len()
    }

    /// Requests that wait for a sequence.
    pub fn waiting_len(&self) -> usize {
        self.queue.len() + self.parked.len()
    }

    /// When to plan again if nothing happens before: at the next deadline, or when a paused sequence has to
    /// give way to a request that waits.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let paused = self.order.iter().filter_map(|seq| self.get(*seq)?.paused).min();
        let stalled = paused.filter(|_| !self.queue.is_empty()).map(|since| since + PAUSE_GRACE);
        deadline.into_iter().chain(stalled).min()
    }

    /// The KV account.
    pub fn kv(&self) -> &KvAccount {
        &self.kv
    }

    /// How many times a request lost its sequence to another.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    fn get(&self, seq: SeqId) -> Option<&Running> {
        self.running.get(seq.index())?.as_ref()
    }

    /// Index in `order` of the first sequence whose rank is not below `rank`.
    fn rank_position(&self, rank: u64) -> usize {
        self.order.partition_point(|seq| self.get(*seq).is_some_and(|r| r.ticket.rank < rank))
    }

    fn running_mut(&mut self, seq: SeqId) -> Option<&mut Running> {
        self.running.get_mut(seq.index())?.as_mut()
    }

    fn stop_running(&mut self, seq: SeqId) -> Option<Running> {
        let running = self.running.get_mut(seq.index())?.take()?;
        self.order.retain(|other| *other != seq);
        self.seqs.remove(&running.ticket.id);
        self.kv.release(seq);
        Some(running)
    }

    fn expire(&mut self, now: Duration) {
        for (deadline, id) in &self.deadlines {
            if *deadline > now {
                break;
            }
            self.plan.expired.push(*id);
        }
        // What has expired is given no work in this plan.
        while self.deadlines.first().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some((_, id)) = self.deadlines.pop_first()
                && let Some(running) = self.seqs.get(&id).copied().and_then(|seq| self.running_mut(seq))
            {
                running.paused.get_or_insert(now);
            }
        }
    }

    fn plan_decodes(&mut self, budget: &mut usize) {
        let mut i = 0;
        while i < self.order.len() && *budget > 0 {
            let seq = self.order[i];
            i += 1;
            let Some(running) = self.get(seq).filter(|r| !r.is_paused() && r.remaining() == 1) else {
                continue;
            };
            let (id, rank, start) = (running.ticket.id, running.ticket.rank, running.computed);
            if self.make_room(seq, start + 1) {
                self.plan.work.push(Work { id, seq, start, len: 1, sample: true });
                *budget -= 1;
            } else if self.order.len() == 1 {
                self.plan.exhausted.push(id);
            } else {
                // Everything that could give way is older, so this sequence does.
                self.preempt_into_plan(id);
            }
            // Making room may have taken sequences out on either side.
            i = self.rank_position(rank + 1);
        }
    }

    /// Grows `seq` to `tokens`, taking the sequences of later rank away one by one, paused ones first.
    fn make_room(&mut self, seq: SeqId, tokens: usize) -> bool {
        loop {
            if self.kv.grow(seq, tokens) {
                return true;
            }
            let Some(victim) =
                self.paused_newest(Duration::MAX).filter(|v| *v != seq).or_else(|| self.newest_after(seq))
            else {
                return false;
            };
            let Some(id) = self.get(victim).map(|r| r.ticket.id) else { return false };
            self.preempt_into_plan(id);
        }
    }

    /// The newest sequence that was paused at `before` or earlier.
    fn paused_newest(&self, before: Duration) -> Option<SeqId> {
        let paused = |seq: &SeqId| self.get(*seq)?.paused.filter(|since| *since <= before);
        self.order.iter().rev().copied().find(|seq| paused(seq).is_some())
    }

    fn newest_after(&self, seq: SeqId) -> Option<SeqId> {
        self.order.last().copied().filter(|last| *last != seq)
    }

    fn preempt_into_plan(&mut self, id: RequestId) {
        if let Some(seq) = self.preempt(id) {
            self.plan.work.retain(|work| work.id != id);
            self.plan.preempted.push((id, seq));
        }
    }

    fn plan_prefills(&mut self, budget: &mut usize) {
        for i in 0..self.order.len() {
            let seq = self.order[i];
            // One token left is a decode, and has been planned as such.
            if self.get(seq).is_some_and(|r| !r.is_paused() && r.remaining() > 1) {
                self.plan_chunk(seq, budget);
            }
        }
    }

    fn plan_chunk(&mut self, seq: SeqId, budget: &mut usize) {
        let Some(running) = self.get(seq) else { return };
        let remaining = running.remaining();
        let len = remaining.min(*budget).min(self.limits.prefill_chunk_max);
        if len == 0 {
            return;
        }
        let work =
            Work { id: running.ticket.id, seq, start: running.computed, len, sample: len == remaining };
        self.plan.work.push(work);
        *budget -= len;
    }

    fn admit(&mut self, now: Duration, budget: &mut usize) {
        while *budget > 0 {
            let Some(ticket) = self.queue.peek().copied() else { break };
            if self.plan.expired.contains(&ticket.id) {
                self.park(ticket.id);
                continue;
            }
            if self.kv.blocks_of(ticket.tokens) > self.kv.blocks_total() {
                self.plan.exhausted.push(ticket.id);
                self.park(ticket.id);
                continue;
            }
            if !self.fits(&ticket) {
                // A consumer that does not read must not keep others waiting.
                let stalled = now.checked_sub(PAUSE_GRACE).and_then(|before| self.paused_newest(before));
                let Some(id) = stalled.and_then(|seq| self.get(seq)).map(|r| r.ticket.id) else { break };
                self.preempt_into_plan(id);
                continue;
            }
            let Some(seq) = self.kv.take_id() else { break };
            self.queue.pop();
            let grown = self.kv.grow(seq, ticket.tokens);
            debug_assert!(grown, "fits() looked");
            self.order.insert(self.rank_position(ticket.rank), seq);
            self.seqs.insert(ticket.id, seq);
            self.running[seq.index()] = Some(Running { ticket, seq, computed: 0, paused: None });
            self.plan.admitted.push((ticket.id, seq));
            self.plan_chunk(seq, budget);
        }
    }

    /// Takes a request out of the queue until the caller removes it.
    fn park(&mut self, id: RequestId) {
        if let Some(ticket) = self.queue.remove(id) {
            self.parked.insert(id, ticket);
        }
    }

    /// Whether a sequence id and KV for the tokens known are free, and beyond them a block for each sequence
    /// that runs: without that slack an admission would be undone by the next decode.
    fn fits(&self, ticket: &Ticket) -> bool {
        let slack = self.order.len();
        self.order.len() < self.limits.running_max
            && self.kv.has_id()
            && self.kv.blocks_of(ticket.tokens) + slack <= self.kv.blocks_free()
    }

    /// Checks what must hold between steps; the first violation as text.
    pub fn check(&self) -> Result<(), String> {
        self.kv.check()?;
        if self.order.len() > self.limits.running_max || self.order.len() != self.seqs.len() {
            return Err(format!("{} in order, {} by request", self.order.len(), self.seqs.len()));
        }
        let mut rank = None;
        for seq in &self.order {
            let running = self.get(*seq).ok_or_else(|| format!("{seq} is in order but does not run"))?;
            if rank.is_some_and(|rank| rank >= running.ticket.rank) {
                return Err(format!("{seq} is out of order"));
            }
            rank = Some(running.ticket.rank);
            if running.seq != *seq || running.computed > running.ticket.tokens {
                return Err(format!("{seq}: {running:?}"));
            }
            if self.kv.blocks_held(*seq) < self.kv.blocks_of(running.computed) {
                return Err(format!("{seq} computed more than it holds blocks for"));
            }
        }
        let planned: usize = self.plan.work.iter().map(|work| work.len).sum();
        if planned > self.limits.batch_tokens_max {
            return Err(format!("{planned} tokens planned, {} allowed", self.limits.batch_tokens_max));
        }
        Ok(())
    }
}
