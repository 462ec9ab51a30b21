//! The step planner: decides what the next forward pass computes. Does no I/O and reads no clock.
//!
//! Arrivals, results and the time are method arguments; the output is a [`Plan`]. It implements continuous
//! batching as in Orca (Yu et al., OSDI 2022) with chunked prefill that does not stall decodes
//! (Sarathi-Serve, Agrawal et al., OSDI 2024): each step takes every running decode first, then prompt chunks
//! within a token budget.

mod adapter_sets;
mod admit;
pub mod budget;
mod check;
mod checkpoints;
mod cold;
mod costs;
mod deadlines;
mod decode;
mod draft;
pub(crate) mod draft_budget;
pub(crate) mod draft_costs;
mod lend;
mod mode;
mod options;
mod plan;
mod preempt;
mod prefill;
mod rewind;
mod running;

pub use costs::StepCost;
pub use mode::{Mode, Preset};
pub use options::SchedulerOptions;
pub use plan::{Admitted, Plan, Work, WorkKind};

use crate::backend::Capabilities;
use crate::batch::SpanAdapter;
use crate::cache_events::CacheEvent;
use crate::priority::Priority;
use crate::schedule::kv::{BlockManager, KvManager, KvOp, KvOptions};
use crate::schedule::queue::{FairOptions, QueueOrder, Service};
use crate::schedule::sched_request::SchedRequest;
use crate::stats::SchedulerStats;
use crate::token::{RequestId, SeqId, TokenId};
use adapter_sets::AdapterSets;
use budget::BatchPolicy;
use cold::Cold;
use costs::Costs;
use deadlines::{Deadlines, Limit};
use draft_costs::RowCosts;
use hashbrown::HashMap;
use running::{Key, Running};
use std::time::Duration;

/// Time for which a paused request keeps its sequence while others wait,
/// so that a slightly slow consumer does not cause a recomputed prompt.
pub const PAUSE_GRACE: Duration = Duration::from_millis(200);

/// The scheduler of one engine.
pub struct Scheduler {
    options: SchedulerOptions,
    /// Maximum running sequences; the session may have more, for cached prefixes.
    sequences: usize,
    context_tokens_max: usize,
    /// Length at which the context of a request with context shift is shifted.
    context_window: usize,
    can_save: bool,
    can_truncate: bool,
    preset: Preset,
    policy: Box<dyn BatchPolicy>,
    kv: KvManager,
    queue: Box<dyn QueueOrder>,
    /// By sequence id.
    running: Vec<Option<Running>>,
    /// The running sequences by [`Key`].
    order: Vec<SeqId>,
    seqs: HashMap<RequestId, SeqId>,
    /// Requests outside the queue until resumed or removed: preempted while paused, or about to end.
    suspended: HashMap<RequestId, SchedRequest>,
    deadlines: Deadlines,
    adapter_sets: AdapterSets,
    costs: Costs,
    row_costs: RowCosts,
    cold: Option<Cold>,
    /// Bytes of saved KV in host memory.
    saved_bytes: u64,
    plan: Plan,
    /// Whether admission is suspended, so that a text to embed gets a sequence.
    admission_held: bool,
    counters: SchedulerStats,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Creates a scheduler for a session with these capabilities.
    pub fn new(capabilities: &Capabilities, options: SchedulerOptions, queue: Box<dyn QueueOrder>) -> Self {
        let sequences = options.running_max.clamp(1, capabilities.sequences_max.max(1));
        let options = SchedulerOptions {
            batch_tokens_max: options.batch_tokens_max.clamp(1, capabilities.batch_tokens_max.max(1)),
            prefill_chunk_max: options.prefill_chunk_max.max(1),
            ..options
        };
        let kv = KvOptions { prefix: options.prefix, bytes_per_token: options.kv_bytes_per_token };
        let mut running = Vec::new();
        running.resize_with(capabilities.sequences_max, || None);
        Self {
            context_tokens_max: capabilities.context_tokens_max,
            context_window: capabilities.context_window(),
            can_save: capabilities.save,
            can_truncate: capabilities.truncate,
            preset: options.mode.preset(sequences),
            policy: options.mode.policy(options.prefill_chunk_max, options.inter_token_target),
            kv: KvManager::new(capabilities, &kv),
            queue,
            running,
            order: Vec::with_capacity(sequences),
            seqs: HashMap::with_capacity(sequences),
            suspended: HashMap::new(),
            deadlines: Deadlines::default(),
            adapter_sets: AdapterSets::new(capabilities, sequences),
            costs: Costs::default(),
            row_costs: RowCosts::default(),
            cold: None,
            saved_bytes: 0,
            plan: Plan::default(),
            admission_held: false,
            counters: SchedulerStats::default(),
            sequences,
            options,
        }
    }

    /// Adds a request to the queue at the time `now`.
    pub fn enqueue(&mut self, request: SchedRequest, now: Duration) {
        self.deadlines.insert(&request);
        self.queue.push(request, now);
    }

    /// Plans the next step for the time `now`.
    pub fn plan(&mut self, now: Duration) -> &Plan {
        self.drop_drafts();
        self.plan.clear();
        self.expire(now);
        self.resume_late(now);
        self.choose_adapter_sets();
        self.plan_decodes(now);
        self.allow_store(now);
        self.settle_followers(now);
        self.admit(now);
        self.plan_prefills(now);
        self.plan_store(now);
        self.kv.drain_ops(&mut self.plan.kv);
        &self.plan
    }

    /// The latest plan.
    pub fn last_plan(&self) -> &Plan {
        &self.plan
    }

    /// Records that `work` was computed, and its generated tokens: none, or up to one more than its drafts,
    /// sampled from its rows, plus any number of tokens in between and after that a constraint forces and
    /// that need no row. A draft is accepted if all generated tokens up to its position equal the drafts.
    /// Returns the number of accepted drafts.
    ///
    /// The KV of rejected drafts is truncated before the next pass,
    /// and the blocks that only they needed become free at once.
    pub fn commit(&mut self, work: &Work, generated: &[TokenId]) -> usize {
        let Some(running) = self.running.get_mut(work.seq.index()).and_then(Option::as_mut) else { return 0 };
        debug_assert_eq!((running.computed, running.request.id), (work.start, work.id));
        debug_assert!(generated.is_empty() || work.rows > 0, "{} tokens without a row", generated.len());
        let request = &mut running.request;
        if !generated.is_empty() && request.awaits_first_token() {
            self.deadlines.first_token(request);
        }
        let accepted = request.append(generated);
        if work.prompt_rows > 0 {
            request.scored = Some(work.start + work.len - work.rows + work.prompt_rows + 1);
        }
        // The logits of the last token are still needed, so the token is treated as not computed even if it
        // was a draft.
        let len = request.tokens().len();
        running.computed = (work.known() + accepted).min(if generated.is_empty() { len } else { len - 1 });
        if work.start < request.prompt_len {
            let computed = running.computed.min(request.prompt_len);
            self.kv.computed(work.seq, &request.namespace, &request.tokens()[..computed]);
        }
        if running.computed < work.start + work.len {
            self.kv.truncate(work.seq, running.computed);
        }
        self.counters.drafted_tokens += work.drafts as u64;
        self.counters.accepted_drafts += accepted as u64;
        if let Some(kind) = work.draft_kind {
            self.counters.drafts.add_run(kind.source, work.drafts, accepted);
        }
        if !generated.is_empty() {
            let (priority, user) = (request.priority, request.user);
            self.queue.charge(Service { priority, user, input: 0, output: generated.len() });
        }
        accepted
    }

    /// The request that holds `seq`.
    pub fn request(&self, seq: SeqId) -> Option<&SchedRequest> {
        self.get(seq).map(|running| &running.request)
    }

    /// Known tokens of the request that holds `seq`: prompt, then answer.
    pub fn tokens(&self, seq: SeqId) -> &[TokenId] {
        self.request(seq).map_or(&[], SchedRequest::tokens)
    }

    /// The tokens that `work` computes, drafts included.
    pub fn tokens_of(&self, work: &Work) -> &[TokenId] {
        let request = self.request(work.seq).filter(|request| request.id == work.id);
        let tokens = request.and_then(|r| r.tokens_and_drafts().get(work.start..work.start + work.len));
        tokens.unwrap_or_default()
    }

    /// The adapters of the request of `work`.
    pub fn adapters_of(&self, work: &Work) -> &[SpanAdapter] {
        let request = self.request(work.seq).filter(|request| request.id == work.id);
        request.and_then(|request| request.adapters.as_deref()).unwrap_or_default()
    }

    /// Maximum length of a request, prompt included, by its own limit and the context's.
    fn len_limit(&self, request: &SchedRequest) -> usize {
        let shifts = request.keep.is_some();
        request.len_max.min(if shifts { self.context_window } else { self.context_tokens_max })
    }

    /// Records the cost of a step.
    pub fn observe(&mut self, step: &StepCost) {
        self.costs.step(step);
        self.row_costs.observe(step);
        self.policy.observe(step);
    }

    /// Records how long the session took to save or restore `tokens` tokens.
    pub fn observe_transfer(&mut self, tokens: usize, elapsed: Duration) {
        self.costs.transfer(self.bytes_of(tokens), elapsed);
    }

    /// Removes an ended request, wherever it is, and returns it. Its KV is kept in the prefix cache.
    pub fn finish(&mut self, id: RequestId) -> Option<SchedRequest> {
        self.take_out(id, true)
    }

    /// Removes a request, wherever it is, and returns it. Its KV is released, because it may be invalid.
    pub fn remove(&mut self, id: RequestId) -> Option<SchedRequest> {
        self.take_out(id, false)
    }

    fn take_out(&mut self, id: RequestId, keep: bool) -> Option<SchedRequest> {
        let request = match self.seqs.get(&id).copied() {
            Some(seq) => {
                let Running { request, computed, .. } = self.stop(seq)?;
                if keep {
                    self.kv.cache(seq, &request.namespace, &request.tokens()[..computed]);
                } else {
                    self.kv.release(seq);
                }
                request
            }
            None => self.queue.remove(id).or_else(|| self.suspended.remove(&id))?,
        };
        self.saved_bytes -= self.bytes_of(request.history.saved);
        self.deadlines.remove(&request);
        Some(request)
    }

    /// Appends the operations that became due outside of a plan to `into`.
    pub fn drain_ops(&mut self, into: &mut Vec<KvOp>) {
        self.kv.drain_ops(into);
    }

    /// Records changes of the cached blocks from now on. Returns `Stored` events for all current blocks.
    pub fn record_blocks(&mut self) -> Vec<CacheEvent> {
        self.kv.record()
    }

    /// Ends the recording of cached blocks.
    pub fn stop_recording_blocks(&mut self) {
        self.kv.stop_recording();
    }

    /// The changes of cached blocks since the last call; none unless they are recorded.
    pub fn drain_block_events(&mut self) -> Vec<CacheEvent> {
        self.kv.drain_events()
    }

    /// Pauses a request at the time `now`: it gets no sequence and no work until resumed.
    pub fn pause(&mut self, id: RequestId, now: Duration) {
        if let Some(running) = self.running_by_id(id) {
            running.paused.get_or_insert(now);
        } else if let Some(request) = self.queue.remove(id) {
            self.suspended.insert(id, request);
        }
    }

    /// Resumes a paused request at the time `now`.
    pub fn resume(&mut self, id: RequestId, now: Duration) {
        if let Some(request) = self.suspended.remove(&id) {
            self.queue.push(request, now);
        } else if let Some(running) = self.running_by_id(id) {
            running.paused = None;
        }
    }

    /// Drops the first-token limit of a request, because another answer to its prompt has a first token.
    pub fn waive_first_token(&mut self, id: RequestId, now: Duration) {
        let mut queued = None;
        let request = match self.seqs.get(&id).copied() {
            Some(seq) => self.running[seq.index()].as_mut().map(|running| &mut running.request),
            None if self.suspended.contains_key(&id) => self.suspended.get_mut(&id),
            None => {
                queued = self.queue.remove(id);
                queued.as_mut()
            }
        };
        if let Some(request) = request {
            self.deadlines.first_token(request);
            request.first_token_by = None;
        }
        if let Some(request) = queued {
            self.queue.push(request, now);
        }
    }

    /// Changes the mode from the next plan on.
    pub fn set_mode(&mut self, mode: Mode) {
        self.options.mode = mode;
        self.preset = mode.preset(self.sequences);
        self.policy = mode.policy(self.options.prefill_chunk_max, self.options.inter_token_target);
    }

    /// Changes the settings of the queue from the next plan on.
    pub fn set_fair(&mut self, options: FairOptions) {
        self.queue.set_fair(options);
    }

    /// The current mode.
    pub fn mode(&self) -> Mode {
        self.options.mode
    }

    /// Requests that hold a sequence.
    pub fn running_len(&self) -> usize {
        self.order.len()
    }

    /// Requests that wait for a sequence.
    pub fn waiting_len(&self) -> usize {
        self.queue.len() + self.suspended.len()
    }

    /// Requests of a class that wait in the queue.
    pub fn depth(&self, priority: Priority) -> usize {
        self.queue.depth(priority)
    }

    /// Number of requests ahead of a waiting request; see [`QueueOrder::position`].
    pub fn position(&self, id: RequestId) -> Option<usize> {
        self.queue.position(id)
    }

    /// Recent time between admissions while the queue is not empty.
    pub fn admission_interval(&self) -> Option<Duration> {
        self.costs.admission_interval()
    }

    /// Time of the next plan if no event occurs before: the next deadline, or the time from which a waiting
    /// request may preempt a paused sequence.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let paused = self.order.iter().filter_map(|seq| self.get(*seq)?.paused).min();
        let stalled = paused.filter(|_| !self.queue.is_empty()).map(|since| since + PAUSE_GRACE);
        self.deadlines.first().into_iter().chain(stalled).chain(self.next_cold()).min()
    }

    /// The earliest deadline that still applies to the request that holds `seq`; `None` for never.
    pub(crate) fn expiry(&self, seq: SeqId) -> Option<Duration> {
        self.get(seq)?.request.expiry()
    }

    /// The block manager.
    pub fn kv(&self) -> &BlockManager {
        self.kv.blocks()
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> SchedulerStats {
        let (kv, tokens) = (self.kv(), self.kv().block_tokens());
        SchedulerStats {
            running: self.running_len(),
            paused: self.running.iter().flatten().filter(|running| running.paused.is_some()).count(),
            waiting: self.waiting_len(),
            waiting_by_class: Priority::ALL.map(|class| self.depth(class)),
            kv_tokens_used: kv.blocks_used() * tokens,
            kv_tokens_cached: kv.blocks_cached() * tokens,
            kv_tokens_shared: kv.blocks_shared() * tokens,
            kv_tokens_max: kv.blocks_total() * tokens,
            kv_block_tokens: tokens,
            ..self.counters
        }
    }

    /// Bytes of KV of `tokens` tokens.
    pub(crate) fn bytes_of(&self, tokens: usize) -> u64 {
        self.options.kv_bytes_per_token.saturating_mul(tokens as u64)
    }

    fn get(&self, seq: SeqId) -> Option<&Running> {
        self.running.get(seq.index())?.as_ref()
    }

    fn running_mut(&mut self, seq: SeqId) -> Option<&mut Running> {
        self.running.get_mut(seq.index())?.as_mut()
    }

    fn running_by_id(&mut self, id: RequestId) -> Option<&mut Running> {
        let seq = *self.seqs.get(&id)?;
        self.running_mut(seq)
    }

    /// Index in `order` of the first sequence whose key is not below `key`.
    fn place(&self, key: Key) -> usize {
        self.order.partition_point(|seq| self.get(*seq).is_some_and(|running| running.key() < key))
    }

    fn start(&mut self, running: Running) {
        let (seq, id) = (running.seq, running.request.id);
        self.order.insert(self.place(running.key()), seq);
        self.seqs.insert(id, seq);
        self.running[seq.index()] = Some(running);
    }

    /// Removes a sequence from the running set; its KV is left to the caller.
    fn stop(&mut self, seq: SeqId) -> Option<Running> {
        let mut running = self.running.get_mut(seq.index())?.take()?;
        running.request.clear_drafts();
        self.order.retain(|other| *other != seq);
        self.seqs.remove(&running.request.id);
        Some(running)
    }

    /// Lists expired requests, and keeps them out of this plan's work.
    fn expire(&mut self, now: Duration) {
        while let Some((id, limit)) = self.deadlines.pop(now) {
            match limit {
                Limit::Deadline => self.plan.expired.push(id),
                Limit::FirstToken => self.plan.late.push(id),
            }
            if let Some(running) = self.running_by_id(id) {
                running.paused.get_or_insert(now);
            } else if let Some(request) = self.queue.remove(id) {
                self.suspended.insert(id, request);
            }
        }
    }
}
