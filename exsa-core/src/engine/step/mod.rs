//! The engine's step: drain commands, plan, move KV, forward, sample, commit, emit.

mod commit;
mod drafting;
mod embed;
mod forward;
#[cfg(test)]
mod mutant;
mod prompts;
mod transfer;
mod watch;

use crate::adapter::{AdapterError, AdapterStatus};
use crate::backend::{Model, ModelSource, Session, SessionOptions};
use crate::batch::Batch;
use crate::cache_events::{CacheEvents, LogWriter};
use crate::clock::Clock;
use crate::embed::{EmbedError, EmbedOutput, EmbedRequest, Pending, RerankOutput, RerankRequest};
use crate::engine::adapters::Adapters;
use crate::engine::answer::Answer;
use crate::engine::embed_job::EmbedQueue;
use crate::engine::in_flight::InFlight;
use crate::engine::info::EngineInfo;
use crate::engine::input_processor::InputProcessor;
use crate::engine::mailbox::{Command, Shutdown};
use crate::engine::request_state::{RequestState, Submission};
use crate::error::LoadError;
use crate::finish::FinishReason;
use crate::generator::SubmitError;
use crate::options::EngineOptions;
use crate::prompt_cache::PromptCacheOptions;
use crate::request::Request;
use crate::sampler::SampleScratch;
use crate::schedule::kv::KvOp;
use crate::schedule::queue::QueueOrder;
use crate::schedule::scheduler::{Mode, Scheduler, SchedulerOptions, Work};
use crate::speculate::Speculation;
use crate::stats::{EngineStats, Recorder};
use crate::stream::{QueuePosition, TokenStream};
use crate::token::{RequestId, TokenId};
use crate::tokenizer::Tokenizer;
use drafting::Drafting;
pub(crate) use forward::panic_text;
use parking_lot::Mutex;
use prompts::Prompts;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// An engine without a thread, for hosts with their own loop and for simulations.
///
/// Each [`step`](Self::step) runs at most one forward pass.
/// [`Engine`](crate::engine::Engine) runs this loop on a thread.
pub struct EngineLoop {
    input: Arc<InputProcessor>,
    tokenizer: Arc<dyn Tokenizer>,
    session: Box<dyn Session>,
    /// Keeps the model alive as long as its session.
    model: Arc<dyn Model>,
    context_max: usize,
    scheduler: Scheduler,
    requests: HashMap<RequestId, Box<RequestState>>,
    /// Answers that have not ended, by the id of their request in the scheduler.
    answers: HashMap<RequestId, Box<Answer>>,
    embeds: EmbedQueue,
    prefill_chunk_max: usize,
    /// KV of preempted requests.
    saved: HashMap<RequestId, Vec<u8>>,
    ops: Vec<KvOp>,
    clock: Arc<dyn Clock>,
    commands: Vec<Command>,
    batch: Batch,
    work: Vec<Work>,
    scratch: SampleScratch,
    generated: Vec<TokenId>,
    speculation: Option<Speculation>,
    cache_watch: Option<LogWriter>,
    prompts: Option<Prompts>,
    recorder: Recorder,
    shared_stats: Arc<Mutex<EngineStats>>,
    stopped: bool,
}

impl fmt::Debug for EngineLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineLoop")
            .field("model", &self.model.info().name)
            .field("requests", &self.requests.len())
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl EngineLoop {
    /// Creates a session of `model`.
    ///
    /// # Errors
    ///
    /// The session cannot be created.
    pub fn new(
        model: Arc<dyn Model>,
        options: EngineOptions,
        queue: Box<dyn QueueOrder>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LoadError> {
        let idle = if options.prefix_cache.enabled { options.prefix_cache.sequences_max } else { 0 };
        let in_flight = Arc::new(InFlight::new(clock.clone()));
        let wanted = SessionOptions {
            sequences_idle_max: idle,
            interrupt: in_flight.interrupt(),
            ..options.session.clone()
        };
        let session = catch_unwind(AssertUnwindSafe(|| model.session(&wanted))).unwrap_or_else(|panic| {
            Err(LoadError::Backend(format!("panic while creating a session: {}", panic_text(&*panic))))
        })?;
        let capabilities = session.capabilities().clone();
        let kv_bytes_per_token = session.kv_bytes_per_token().unwrap_or(model.info().kv_bytes_per_token);
        let mut fingerprint = model.fingerprint();
        let kv_types = (options.session.key_type, options.session.value_type);
        fingerprint.update(format!("{kv_types:?}").as_bytes());
        let info = EngineInfo { model: model.info().clone(), capabilities, kv_bytes_per_token, fingerprint };
        let recorder = Recorder::new(&model.info().name);
        let adapters = Adapters::new(model.clone(), options.adapters, options.session.adapter_rank_max);
        let scheduling = SchedulerOptions {
            batch_tokens_max: options.session.batch_tokens_max,
            prefill_chunk_max: options.prefill_chunk_max,
            running_max: options.session.sequences_max,
            mode: options.mode,
            inter_token_target: options.inter_token_target,
            prefix: options.prefix_cache,
            kv_bytes_per_token,
            saved_bytes_max: options.saved_kv_bytes_max,
            preemptions_max: options.preemptions_max,
        };
        let speculation = options.speculation.is_on(&info.capabilities).then(Speculation::default);
        let speculation = speculation.map(|speculation| speculation.n_vocab(info.model.n_vocab));
        let mut scheduler = Scheduler::new(&info.capabilities, scheduling, queue);
        let prompts =
            options.prompt_cache.clone().filter(|wanted| scheduler.use_store(wanted.clone(), fingerprint));
        let prompts = prompts.map(|PromptCacheOptions { store, shutdown_wait, .. }| Prompts {
            store,
            fingerprint,
            shutdown_wait,
            ended: VecDeque::new(),
        });
        Ok(Self {
            tokenizer: model.tokenizer(),
            scheduler,
            prompts,
            context_max: info.capabilities.context_tokens_max,
            prefill_chunk_max: options.prefill_chunk_max,
            input: Arc::new(InputProcessor::new(
                info,
                model.tokenizer(),
                options,
                Some(adapters),
                in_flight,
                clock.clone(),
            )),
            session,
            model,
            requests: HashMap::new(),
            answers: HashMap::new(),
            embeds: EmbedQueue::default(),
            saved: HashMap::new(),
            ops: Vec::new(),
            clock,
            commands: Vec::new(),
            batch: Batch::new(),
            work: Vec::new(),
            scratch: SampleScratch::default(),
            generated: Vec::new(),
            speculation,
            cache_watch: None,
            shared_stats: Arc::new(Mutex::new(recorder.stats)),
            recorder,
            stopped: false,
        })
    }

    /// Changes the mode from the next step on.
    pub fn set_mode(&mut self, mode: Mode) {
        self.scheduler.set_mode(mode);
    }

    /// Sets the proposers of drafts from the next step on; `None` disables speculation. Returns the previous
    /// proposers with their learned state.
    pub fn speculate(&mut self, speculation: Option<Speculation>) -> Option<Speculation> {
        let n_vocab = self.input.info.model.n_vocab;
        std::mem::replace(&mut self.speculation, speculation.map(|speculation| speculation.n_vocab(n_vocab)))
    }

    /// Watches the prefix cache; see [`Engine::watch_cache`](crate::Engine::watch_cache).
    pub fn watch_cache(&self, bytes_max: usize) -> CacheEvents {
        CacheEvents::new(self.input.mailbox.clone(), bytes_max)
    }

    /// Loads an adapter; see [`Engine::load_adapter`](crate::Engine::load_adapter).
    ///
    /// # Errors
    ///
    /// The reason for refusing the adapter.
    pub fn load_adapter(&self, name: &str, source: &ModelSource) -> Result<AdapterStatus, AdapterError> {
        self.input.load_adapter(name, source)
    }

    /// Unloads an adapter; see [`Engine::unload_adapter`](crate::Engine::unload_adapter).
    ///
    /// # Errors
    ///
    /// [`AdapterError::Unknown`] if no adapter has this name.
    pub fn unload_adapter(&self, name: &str) -> Result<(), AdapterError> {
        self.input.unload_adapter(name)
    }

    /// Accepts a request.
    ///
    /// # Errors
    ///
    /// The reason for refusing it.
    pub fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        self.input.submit(request)
    }

    /// Accepts an embedding request.
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    pub fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        self.input.embed(request)
    }

    /// Accepts a rerank request.
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    pub fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        self.input.rerank(request)
    }

    /// Runs one step. Returns `false` if there was nothing to do; the engine is then idle until a request
    /// arrives, a stream is read or cancelled, or a deadline passes.
    pub fn step(&mut self) -> bool {
        let commands = self.take_commands();
        if self.stopped {
            return false;
        }
        let restored = self.restore_prompt();
        let start = self.clock.now();
        self.scheduler.plan(start);
        if let Some(speculation) = &mut self.speculation {
            let (answers, scratch) = (&mut self.answers, &mut self.scratch);
            let mut context = Drafting { answers, scratch, clock: &*self.clock };
            self.scheduler.plan_drafts(speculation, &mut context);
        }
        let changes = !self.scheduler.last_plan().is_empty();
        self.apply_plan();
        self.recorder.stats.step_times.plan += self.clock.now().saturating_sub(start);
        if commands {
            // Makes new requests visible to observers before their first pass, which may take long.
            self.publish();
        }
        if !self.work.is_empty() {
            self.forward();
        }
        let embedded = !self.stopped && self.embed_texts();
        self.publish();
        commands || restored || changes || embedded
    }

    /// Whether the engine holds no request and the mailbox is empty.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.embeds.is_empty() && self.input.mailbox.is_empty()
    }

    /// Whether the backend panicked, so that no further step is possible.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> EngineStats {
        self.recorder.stats
    }

    /// Read access to the scheduler.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Time until the next step has work even if no command arrives before; `None` for never.
    pub fn until_wakeup(&self) -> Option<Duration> {
        let next = self.scheduler.next_wakeup().into_iter().chain(self.embed_wakeup()).min()?;
        Some(next.saturating_sub(self.clock.now()))
    }

    /// Ends every request with `reason` and accepts no more.
    pub fn end_all(&mut self, reason: &FinishReason) {
        self.stopped = true;
        // A consumer that reads the end of its stream and submits again must be refused.
        self.input.mailbox.shut_down(Shutdown::Abort);
        self.take_commands();
        let mut ids: Vec<_> = self.requests.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end_request(id, reason);
        }
        self.end_embeds(reason);
        if !matches!(reason, FinishReason::Failed(_)) {
            self.save_prompts();
        }
        self.input.mailbox.close();
        self.publish();
        self.cache_watch = None;
    }

    pub(crate) fn input(&self) -> &Arc<InputProcessor> {
        &self.input
    }

    pub(crate) fn shared_stats(&self) -> Arc<Mutex<EngineStats>> {
        self.shared_stats.clone()
    }

    fn take_commands(&mut self) -> bool {
        let mut commands = std::mem::take(&mut self.commands);
        self.input.mailbox.take(&mut commands);
        let any = !commands.is_empty();
        let now = self.clock.now();
        for command in commands.drain(..) {
            match command {
                Command::Submit(submission) => self.accept(submission, now),
                Command::Embed(job) => {
                    self.recorder.stats.submitted += 1;
                    self.embeds.push(*job);
                }
                Command::Cancel(id) => {
                    if !self.end_embed(id, EmbedError::Cancelled) {
                        self.end_request(id, &FinishReason::Cancelled);
                    }
                }
                Command::Resume(id) => {
                    for id in self.requests.get(&id).map_or(&[][..], |state| &state.open) {
                        self.scheduler.resume(*id, now);
                    }
                }
                Command::Mode(mode) => self.scheduler.set_mode(mode),
                Command::Fair(options) => self.scheduler.set_fair(options),
                Command::Speculate(speculation) => drop(self.speculate(speculation.map(|boxed| *boxed))),
                Command::Position(id) => self.tell_position(id),
                Command::WatchCache(log) => self.watch_for(log),
                Command::PromptRead(end) => self.prompt_read(end),
                Command::SavePrompts(done) => {
                    let saved = self.save_prompts();
                    // The caller may have stopped waiting.
                    let _ = done.send(saved);
                }
            }
        }
        self.commands = commands;
        any
    }

    /// Applies the plan apart from its forward pass, and copies its work.
    fn apply_plan(&mut self) {
        let now = self.clock.now();
        let plan = self.scheduler.last_plan();
        self.ops.extend_from_slice(&plan.kv);
        for admitted in plan.admitted.iter().filter(|admitted| !admitted.again) {
            let Some(answer) = self.answers.get_mut(&admitted.id) else { continue };
            answer.admitted = true;
            let Some(state) = self.requests.get_mut(&answer.request) else { continue };
            if state.admitted.is_none() {
                (state.admitted, state.first_admitted) = (Some(now), Some(admitted.id));
                self.recorder.queue_time(now.saturating_sub(state.submitted));
            }
            self.input.admission.leave(state.priority, &state.user);
        }
        for (id, tokens) in &plan.cached {
            let Some(answer) = self.answers.get(id) else { continue };
            if let Some(state) = self.requests.get_mut(&answer.request)
                && state.first_admitted == Some(*id)
            {
                state.cached_tokens = *tokens;
            }
        }
        if plan.ends_any() {
            let expired = plan.expired.iter().map(|id| (*id, FinishReason::Deadline));
            let late = plan.late.iter().map(|id| (*id, FinishReason::FirstTokenTimeout));
            let expired: Vec<_> = expired.chain(late).collect();
            let exhausted = plan.exhausted.clone();
            for (id, reason) in expired {
                if let Some(answer) = self.answers.get(&id) {
                    self.end_request(answer.request, &reason);
                }
            }
            for id in exhausted {
                self.end_answer(id, FinishReason::ContextFull);
            }
        }
        self.apply_kv_ops();
        self.begin_reads();
        self.work.clear();
        self.work.extend_from_slice(&self.scheduler.last_plan().work);
    }

    fn tell_position(&self, id: RequestId) {
        let Some(state) = self.requests.get(&id) else { return };
        state.stream.position(self.scheduler.position(id).map(|ahead| {
            let each = self.scheduler.admission_interval();
            let places = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
            QueuePosition::new(ahead, each.map(|each| each.saturating_mul(places)))
        }));
    }

    /// Accepts a request: its answers enter the queue. If log-probabilities of the prompt are requested, the
    /// first answer computes them, and the others wait for it.
    fn accept(&mut self, submission: Submission, now: Duration) {
        let Submission { mut state, answers } = submission;
        self.recorder.stats.submitted += 1;
        let (request_id, mut ended) = (state.id, None);
        for (mut answer, request) in answers {
            ended = answer.ended.take().map(|reason| (request.id, reason)).or(ended);
            self.answers.insert(request.id, answer);
            state.held.push_back(request);
        }
        state.enqueue_held(&mut self.scheduler, now);
        self.requests.insert(request_id, state);
        if let Some((id, reason)) = ended {
            self.end_answer(id, reason);
        }
    }

    /// Ends all open answers of a request.
    fn end_request(&mut self, id: RequestId, reason: &FinishReason) {
        let Some(state) = self.requests.get_mut(&id) else { return };
        state.held.clear();
        for answer in state.open.clone() {
            self.end_answer(answer, reason.clone());
        }
    }

    /// Ends an answer, and its request if no other answer is open.
    fn end_answer(&mut self, id: RequestId, reason: FinishReason) {
        let Some(mut answer) = self.answers.remove(&id) else { return };
        let failed = matches!(reason, FinishReason::Failed(_));
        // The KV of a failed sequence may be invalid.
        let request = if failed { self.scheduler.remove(id) } else { self.scheduler.finish(id) };
        if let Some(speculation) = &mut self.speculation {
            speculation.finished(id);
        }
        self.saved.remove(&id);
        let (request_id, now) = (answer.request, self.clock.now());
        let Some(state) = self.requests.get_mut(&request_id) else { return };
        if !answer.admitted {
            self.input.admission.leave(state.priority, &state.user);
        }
        state.open.retain(|open| *open != id);
        state.failed += usize::from(failed);
        let dropped = answer.drop_pending(&reason);
        let answered = request.as_ref().map_or(0, |request| request.answer_len());
        state.completion_tokens += answered.saturating_sub(dropped);
        state.shifted_tokens += request.map_or(0, |request| request.shifted());
        if let Some(next) = state.held.front_mut() {
            // The next answer computes the log-probabilities that are still missing.
            next.scored = state.scored;
            state.enqueue_held(&mut self.scheduler, now);
        }
        let ended = answer.finish(reason, &*self.tokenizer, &state.stream);
        if !state.open.is_empty() {
            if !state.answer_ended(ended) {
                state.pause(&mut self.scheduler, now);
            }
            return;
        }
        self.recorder.stats.finished += 1;
        self.recorder.stats.failed += u64::from(state.failed == state.n);
        // The counters must include the end before the consumer reads it.
        self.publish();
        if let Some(state) = self.requests.remove(&request_id) {
            state.finish(ended, now);
        }
    }

    fn publish(&mut self) {
        self.publish_cache_events();
        self.recorder.stats.scheduler = self.scheduler.stats();
        self.recorder.stats.embeds_open = self.embeds.len();
        self.recorder.publish();
        self.input.admission.set_interval(self.scheduler.admission_interval());
        *self.shared_stats.lock() = self.recorder.stats;
    }
}
