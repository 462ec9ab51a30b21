//! The engine's step: drain commands, plan, forward, sample, commit, emit.

use crate::backend::{Interrupt, Model, Session};
use crate::batch::{Batch, Logits};
use crate::clock::Clock;
use crate::engine::EngineOptions;
use crate::error::{LoadError, StepError};
use crate::finish::{FinishReason, RequestError};
use crate::generator::SubmitError;
use crate::intake::Intake;
use crate::mailbox::{Command, Shutdown};
use crate::queue::QueueOrder;
use crate::request::Request;
use crate::sampler::SampleScratch;
use crate::scheduler::{RequestId, Scheduler, SchedulerLimits, Work};
use crate::sequence::{Advance, Sequence};
use crate::stats::EngineStats;
use crate::stream::TokenStream;
use crate::token::SeqId;
use crate::tokenizer::Tokenizer;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An engine without a thread: for hosts with a loop of their own, and for simulations.
///
/// Each [`step`](Self::step) is one forward pass at most. [`Engine`](crate::engine::Engine) runs one of these on
/// a thread.
pub struct EngineLoop {
    intake: Arc<Intake>,
    tokenizer: Arc<dyn Tokenizer>,
    session: Box<dyn Session>,
    interrupt: Interrupt,
    context_max: usize,
    scheduler: Scheduler,
    sequences: HashMap<RequestId, Box<Sequence>>,
    clock: Arc<dyn Clock>,
    commands: Vec<Command>,
    batch: Batch,
    work: Vec<Work>,
    scratch: SampleScratch,
    stats: EngineStats,
    shared_stats: Arc<Mutex<EngineStats>>,
    stopped: bool,
}

impl EngineLoop {
    /// Makes a session of `model`.
    pub fn new(
        model: Arc<dyn Model>,
        options: EngineOptions,
        queue: Box<dyn QueueOrder>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LoadError> {
        let session = model.session(&options.session)?;
        let capabilities = session.capabilities().clone();
        let limits = SchedulerLimits {
            batch_tokens_max: options.session.batch_tokens_max,
            prefill_chunk_max: options.prefill_chunk_max,
            running_max: options.session.sequences_max,
        };
        let stats = EngineStats { kv_tokens_max: capabilities.kv_tokens_max, ..EngineStats::default() };
        Ok(Self {
            tokenizer: model.tokenizer(),
            scheduler: Scheduler::new(&capabilities, limits, queue),
            context_max: capabilities.context_tokens_max,
            interrupt: options.session.interrupt.clone(),
            intake: Arc::new(Intake::new(model, capabilities, options, clock.clone())),
            session,
            sequences: HashMap::new(),
            clock,
            commands: Vec::new(),
            batch: Batch::new(),
            work: Vec::new(),
            scratch: SampleScratch::default(),
            stats,
            shared_stats: Arc::new(Mutex::new(stats)),
            stopped: false,
        })
    }

    /// Accepts a request, or says why not.
    pub fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        self.intake.submit(request)
    }

    /// Goes one step on. `false` where there was nothing to do: then nothing will change before a request
    /// arrives, a stream is read or cancelled, or a deadline passes.
    pub fn step(&mut self) -> bool {
        let commands = self.take_commands();
        if self.stopped {
            return false;
        }
        self.scheduler.plan(self.clock.now());
        let changes = !self.scheduler.last_plan().is_empty();
        self.settle_plan();
        if !self.work.is_empty() {
            self.forward();
        }
        self.publish();
        commands || changes
    }

    /// Whether no request is here.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Whether the backend panicked, so that no further step is possible.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The counters.
    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    /// The scheduler, to look at.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// How long until a step finds something to do even if nothing happens before; `None` for never.
    pub fn until_wakeup(&self) -> Option<Duration> {
        Some(self.scheduler.next_wakeup()?.saturating_sub(self.clock.now()))
    }

    /// Ends every request with `reason` and accepts no more.
    pub fn end_all(&mut self, reason: &FinishReason) {
        self.stopped = true;
        // Who reads the end of a stream and submits again must not be accepted.
        self.intake.mailbox.shut_down(Shutdown::Abort);
        self.take_commands();
        let mut ids: Vec<_> = self.sequences.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end(id, reason.clone());
        }
        self.intake.mailbox.close();
        self.publish();
    }

    pub(crate) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    pub(crate) fn shared_stats(&self) -> Arc<Mutex<EngineStats>> {
        self.shared_stats.clone()
    }

    fn take_commands(&mut self) -> bool {
        let mut commands = std::mem::take(&mut self.commands);
        self.intake.mailbox.take(&mut commands);
        let any = !commands.is_empty();
        for command in commands.drain(..) {
            match command {
                Command::Submit(sequence) => {
                    self.stats.submitted += 1;
                    self.scheduler.enqueue(sequence.ticket());
                    self.sequences.insert(sequence.id, sequence);
                }
                Command::Cancel(id) => self.end(id, FinishReason::Cancelled),
                Command::Resume(id) => self.scheduler.resume(id),
            }
        }
        self.commands = commands;
        any
    }

    /// Does what the plan asks for besides computing, and takes over its work.
    fn settle_plan(&mut self) {
        let plan = self.scheduler.last_plan();
        for (_, seq) in &plan.preempted {
            self.session.release(*seq);
        }
        let now = self.clock.now();
        for (id, _) in &plan.admitted {
            if let Some(sequence) = self.sequences.get_mut(id)
                && sequence.admitted.is_none()
            {
                sequence.admitted = Some(now);
                self.intake.waiting.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.work.clear();
        self.work.extend_from_slice(&plan.work);
        if plan.expired.is_empty() && plan.exhausted.is_empty() {
            return;
        }
        let expired = plan.expired.iter().map(|id| (*id, FinishReason::Deadline));
        let exhausted = plan.exhausted.iter().map(|id| (*id, FinishReason::ContextFull));
        let ended: Vec<_> = expired.chain(exhausted).collect();
        for (id, reason) in ended {
            self.end(id, reason);
        }
    }

    /// Computes the work; sequences at fault leave it until the rest goes through.
    fn forward(&mut self) {
        while !self.work.is_empty() {
            self.batch.clear();
            for work in &self.work {
                if let Some(sequence) = self.sequences.get(&work.id) {
                    let tokens = &sequence.tokens[work.start..work.start + work.len];
                    self.batch.push(work.seq, work.start, tokens, usize::from(work.sample));
                }
            }
            let (session, batch) = (&mut self.session, &self.batch);
            let pass = move || {
                let session = session;
                session.forward(batch)
            };
            let error = match catch_unwind(AssertUnwindSafe(pass)) {
                Ok(Ok(logits)) if logits.rows() == batch.rows() => {
                    let now = self.clock.now();
                    self.stats.steps += 1;
                    self.stats.tokens_computed += batch.len() as u64;
                    let ended = Commit {
                        scheduler: &mut self.scheduler,
                        sequences: &mut self.sequences,
                        tokenizer: &*self.tokenizer,
                        scratch: &mut self.scratch,
                        context_max: self.context_max,
                        now,
                    }
                    .run(&self.work, logits);
                    self.stats.tokens_generated += batch.rows() as u64;
                    for (id, reason) in ended {
                        self.end(id, reason);
                    }
                    return;
                }
                Ok(Ok(logits)) => {
                    StepError::Backend(format!("{} rows asked for, {} given", batch.rows(), logits.rows()))
                }
                Ok(Err(error)) => error,
                Err(panic) => {
                    let error = RequestError::Panicked(panic_text(&*panic));
                    self.end_all(&FinishReason::Failed(error));
                    return;
                }
            };
            if !self.recover(&error) {
                return;
            }
        }
    }

    /// Puts the sequences of a failed pass back to where they were. Whether the pass is worth another try,
    /// because the sequence at fault has left it.
    fn recover(&mut self, error: &StepError) -> bool {
        let culprit = error.seq();
        let interrupted = matches!(error, StepError::Interrupted);
        if interrupted {
            self.interrupt.clear();
        }
        let mut retry = Vec::with_capacity(self.work.len());
        for work in std::mem::take(&mut self.work) {
            let blamed = match culprit {
                Some(seq) => seq == work.seq,
                None => !interrupted,
            };
            if blamed {
                self.end(work.id, FinishReason::Failed(error.into()));
            } else if self.roll_back(work.id, work.seq, work.start) {
                retry.push(work);
            }
        }
        let progress = culprit.is_some() && retry.len() < self.batch.spans().len();
        self.work = retry;
        progress
    }

    /// Truncates a sequence; where the session cannot, its request starts anew from the queue.
    fn roll_back(&mut self, id: RequestId, seq: SeqId, len: usize) -> bool {
        if len == 0 {
            self.session.release(seq);
            return true;
        }
        if self.session.capabilities().truncate && self.session.truncate(seq, len).is_ok() {
            return true;
        }
        self.scheduler.preempt(id);
        self.session.release(seq);
        false
    }

    fn end(&mut self, id: RequestId, reason: FinishReason) {
        let Some(sequence) = self.sequences.remove(&id) else { return };
        if let Some(seq) = self.scheduler.remove(id) {
            self.session.release(seq);
        }
        if sequence.admitted.is_none() {
            self.intake.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        self.stats.finished += 1;
        self.stats.failed += u64::from(matches!(reason, FinishReason::Failed(_)));
        // Who reads the end of a stream finds it in the counters.
        self.publish();
        sequence.finish(reason, self.clock.now());
    }

    fn publish(&mut self) {
        let kv = self.scheduler.kv();
        self.stats.running = self.scheduler.running_len();
        self.stats.waiting = self.scheduler.waiting_len();
        self.stats.kv_tokens_used = kv.blocks_used() * kv.block_tokens();
        self.stats.preemptions = self.scheduler.preemptions();
        *self.shared_stats.lock() = self.stats;
    }
}

/// Everything that takes part when logits become tokens.
struct Commit<'a> {
    scheduler: &'a mut Scheduler,
    sequences: &'a mut HashMap<RequestId, Box<Sequence>>,
    tokenizer: &'a dyn Tokenizer,
    scratch: &'a mut SampleScratch,
    context_max: usize,
    now: Duration,
}

impl Commit<'_> {
    /// Samples, commits and emits each piece of work; the requests that ended with it.
    fn run(mut self, work: &[Work], logits: Logits<'_>) -> Vec<(RequestId, FinishReason)> {
        let mut ended = Vec::new();
        let mut rows = 0;
        for work in work {
            let row = work.sample.then(|| logits.row(rows)).flatten();
            rows += usize::from(work.sample);
            match row.map(|row| self.sample(work, row)) {
                None => self.scheduler.commit(work, false),
                Some(Advance::Continue) => self.scheduler.commit(work, true),
                Some(Advance::StreamFull) => {
                    self.scheduler.commit(work, true);
                    self.scheduler.pause(work.id, self.now);
                }
                Some(Advance::End(reason)) => ended.push((work.id, reason)),
            }
        }
        ended
    }

    fn sample(&mut self, work: &Work, row: &[f32]) -> Advance {
        let Some(sequence) = self.sequences.get_mut(&work.id) else {
            return Advance::End(FinishReason::Cancelled);
        };
        let position = sequence.tokens.len() as u64;
        match sequence.sampler.sample(row, &sequence.tokens, position, self.scratch) {
            Ok(sampled) => {
                sequence.advance(sampled.token, sampled.logprob, self.tokenizer, self.context_max, self.now)
            }
            Err(error) => Advance::End(FinishReason::Failed(error.into())),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
