//! Slot of a worker: the state that outlives its processes, and the supervisor thread.

use super::cause::ExitCause;
use super::connection::Connection;
use super::memory;
use super::options::WorkerOptions;
use super::process::Process;
use super::receive::{Step, receive};
use super::status::{WorkerState, WorkerStatus};
use super::step_cost::StepCost;
use super::supervision::{Action, Phase, Sign, Supervision};
use crate::frame::Beat;
use crate::setup::Setup;
use exsa_core::model_info::ModelInfo;
use exsa_core::stats::EngineStats;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{EngineInfo, RequestValidator};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Poll interval of a running process.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between two memory checks.
const MEMORY_TICKS: u32 = 5;
/// Poll interval while there is no process.
const IDLE: Duration = Duration::from_secs(1);
/// Time to read remaining messages after a process has exited, and for a process to exit after its connection
/// has ended.
const LINGER: Duration = Duration::from_secs(1);
/// Tokens that a model may have beyond those of its tokenizer, as padding.
const PADDING_MAX: usize = 1 << 16;

/// A command, or a step of a process.
pub(super) enum Message {
    /// Of the process with this number.
    Step(u64, Step, Option<Sender<Option<Arc<Connection>>>>),
    Restart,
    Stop {
        abort: bool,
    },
    /// The worker is dropped: end everything, including the thread.
    Quit,
}

/// State shared by the supervisor's thread and its worker.
pub(super) struct Slot {
    pub(super) options: WorkerOptions,
    pub(super) name: Mutex<String>,
    pub(super) status: Mutex<WorkerStatus>,
    pub(super) tokenizer: Arc<dyn Tokenizer>,
    /// Model information of the last ready process.
    pub(super) facts: Mutex<Option<Facts>>,
    /// The process that accepts requests.
    pub(super) live: Mutex<Option<Arc<Connection>>>,
    /// The last heartbeat of the running process.
    pub(super) beat: Mutex<Beat>,
    /// A heartbeat that the supervisor has not seen yet. The supervisor polls it, so that a process that
    /// sends many cannot fill its queue.
    pub(super) next_beat: Mutex<Option<Box<Beat>>>,
    /// Counters of earlier processes.
    pub(super) ended_stats: Mutex<EngineStats>,
    /// Requested restarts that are not yet visible in the status.
    pub(super) asked: AtomicUsize,
}

/// Information about the model and its engine.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) model: Arc<ModelInfo>,
    pub(super) validator: Arc<RequestValidator>,
}

impl Slot {
    /// Name of the worker for messages.
    pub(super) fn title(&self) -> String {
        format!("worker {} of {}", self.options.number, self.name.lock())
    }

    fn set_status(&self, change: impl FnOnce(&mut WorkerStatus)) {
        let mut status = self.status.lock();
        let before = status.clone();
        change(&mut status);
        let changed =
            (status.state != before.state || status.pid != before.pid || status.sandbox != before.sandbox)
                .then(|| status.clone());
        drop(status);
        if let (Some(status), Some(on_change)) = (changed, &self.options.on_change) {
            on_change(&status);
        }
    }

    /// Validates the information reported by a worker.
    fn accept(&self, info: EngineInfo) -> Result<Facts, String> {
        let n_vocab = info.model.n_vocab;
        let own = self.tokenizer.n_vocab();
        if n_vocab < own || n_vocab - own > PADDING_MAX {
            return Err(format!(
                "the worker's model has a vocabulary of {n_vocab} tokens, and the host's tokenizer {own}"
            ));
        }
        // After a restart it is the same model, so the validator's compiled state is kept.
        if let Some(facts) = self.facts.lock().clone()
            && *facts.validator.info() == info
        {
            return Ok(facts);
        }
        let model = Arc::new(info.model.clone());
        let (tokenizer, engine) = (self.tokenizer.clone(), self.options.engine.clone());
        Ok(Facts { model, validator: Arc::new(RequestValidator::new(info, tokenizer, engine)) })
    }
}

/// Supervisor of a slot.
pub(super) struct Supervisor {
    slot: Arc<Slot>,
    messages: Receiver<Message>,
    sender: Sender<Message>,
    start: Instant,
    supervision: Supervision,
    process: Option<Process>,
    connection: Option<Arc<Connection>>,
    cost: StepCost,
    /// Sequence number of the process.
    number: u64,
    /// Whether the receiver's thread has seen the end of the connection.
    receiver_ended: bool,
    /// Time at which the exit of the process was observed.
    exited_at: Option<Instant>,
    load_failed: Option<String>,
    ticks: u32,
}

impl Supervisor {
    pub(super) fn new(slot: Arc<Slot>, messages: Receiver<Message>, sender: Sender<Message>) -> Self {
        let (restart, timeouts) = (slot.options.restart.clone(), slot.options.timeouts.clone());
        Self {
            slot,
            messages,
            sender,
            start: Instant::now(),
            supervision: Supervision::new(restart, timeouts, Duration::ZERO),
            process: None,
            connection: None,
            cost: StepCost::default(),
            number: 0,
            receiver_ended: false,
            exited_at: None,
            load_failed: None,
            ticks: 0,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Supervises until the worker is dropped.
    pub(super) fn run(mut self) {
        loop {
            let message = match self.messages.recv_timeout(self.pause()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Quit),
            };
            let asked = usize::from(matches!(message, Some(Message::Restart)));
            match message {
                Some(Message::Quit) => return self.quit(),
                Some(message) => self.handle(message),
                None => {}
            }
            self.look();
            self.act();
            self.publish();
            self.slot.asked.fetch_sub(asked, Ordering::SeqCst);
        }
    }

    /// Returns the time until the next poll.
    fn pause(&self) -> Duration {
        if self.process.is_some() {
            return TICK;
        }
        self.supervision.next().map_or(IDLE, |at| at.saturating_sub(self.now())).min(IDLE)
    }

    fn handle(&mut self, message: Message) {
        let now = self.now();
        match message {
            Message::Restart => {
                self.supervision.restart(now);
                self.close_if_draining();
            }
            Message::Stop { abort } => {
                self.supervision.stop(now, abort);
                self.close_if_draining();
            }
            Message::Step(number, step, answer) if number == self.number => {
                let connection = self.step(now, step);
                answer.into_iter().for_each(|answer| _ = answer.send(connection.clone()));
            }
            // A step of an earlier process.
            Message::Step(_, _, answer) => answer.into_iter().for_each(|answer| _ = answer.send(None)),
            Message::Quit => {}
        }
    }

    fn step(&mut self, now: Duration, step: Step) -> Option<Arc<Connection>> {
        match step {
            Step::Sandboxed(report) => self.slot.set_status(|status| status.sandbox = Some(report)),
            Step::LoadFailed(reason) => self.load_failed = Some(reason),
            Step::EngineEnded => self.supervision.engine_ended(now),
            Step::Ready(info) => return self.ready(now, *info),
            Step::Ended(violation) => {
                self.receiver_ended = true;
                if let (Some(process), Some(problem)) = (&mut self.process, violation) {
                    process.kill(ExitCause::Protocol(problem));
                }
            }
        }
        None
    }

    fn beat(&mut self, now: Duration, beat: &Beat) {
        self.cost.observe(&beat.stats);
        *self.slot.beat.lock() = *beat;
        let prompt_tokens = self.connection.as_ref().map_or(0, |connection| {
            connection.prompt_tokens().min(connection.info().capabilities.batch_tokens_max as u64)
        });
        let timeouts = &self.slot.options.timeouts;
        let allowance = self.cost.allowance(prompt_tokens, timeouts.stall_min, timeouts.start);
        let sign = Sign { idle: Duration::from_micros(beat.idle_us), allowance };
        self.supervision.beat(now, beat.loaded, sign);
        if *self.supervision.phase() == Phase::Starting && beat.to_load > 0 {
            let share = beat.loaded as f32 / beat.to_load as f32;
            self.slot.set_status(|status| status.state = WorkerState::Starting(share.clamp(0.0, 1.0)));
        }
    }

    fn ready(&mut self, now: Duration, info: EngineInfo) -> Option<Arc<Connection>> {
        let process = self.process.as_mut()?;
        if *self.supervision.phase() != Phase::Starting {
            return None;
        }
        let facts = match self.slot.accept(info) {
            Ok(facts) => facts,
            Err(problem) => {
                process.kill(ExitCause::Load(problem));
                return None;
            }
        };
        let connection = Arc::new(Connection::new(process.output.clone(), facts.validator.clone()));
        if !facts.model.name.is_empty() {
            self.slot.name.lock().clone_from(&facts.model.name);
        }
        *self.slot.facts.lock() = Some(facts);
        *self.slot.live.lock() = Some(connection.clone());
        self.connection = Some(connection.clone());
        self.supervision.ready(now);
        self.slot.set_status(|status| status.state = WorkerState::Ready);
        Some(connection)
    }

    /// Stops accepting requests if the phase requires it.
    fn close_if_draining(&mut self) {
        if matches!(self.supervision.phase(), Phase::Draining { .. } | Phase::Ending { .. }) {
            *self.slot.live.lock() = None;
            if let Some(connection) = &self.connection {
                connection.close();
            }
            self.slot.set_status(|status| status.state = WorkerState::Stopping);
        }
    }

    /// Polls the process: its exit, its memory.
    fn look(&mut self) {
        let beat = self.slot.next_beat.lock().take();
        if let Some(beat) = beat.filter(|_| self.process.is_some()) {
            self.beat(self.now(), &beat);
        }
        let Some(process) = &mut self.process else { return };
        self.ticks = self.ticks.wrapping_add(1);
        if process.has_exited() {
            let at = *self.exited_at.get_or_insert_with(Instant::now);
            if !self.receiver_ended {
                // Remaining messages are delivered. A copy of its end in another process, possible without
                // the sandbox, must not keep the connection open.
                if at.elapsed() > LINGER {
                    process.close();
                }
                return;
            }
            self.ended();
        } else if self.receiver_ended {
            if process.killed.is_none() && !process.wait_timeout(LINGER) {
                process.kill(ExitCause::Protocol("it closed its connection".into()));
            }
            process.wait();
            self.ended();
        } else if self.ticks.is_multiple_of(MEMORY_TICKS)
            && let Some((memory, private)) = memory::of(process.id())
        {
            if let Some(limit) = self.slot.options.memory_max.filter(|limit| private > *limit) {
                process.kill(ExitCause::Memory { used: private, limit });
            }
            self.slot.set_status(|status| (status.memory, status.memory_private) = (memory, private));
        }
    }

    /// Reaps an exited process, and fails its requests.
    fn ended(&mut self) {
        let Some(process) = self.process.take() else { return };
        let cause = match self.load_failed.take() {
            Some(reason) if process.killed.is_none() => ExitCause::Load(reason),
            _ => process.cause(),
        };
        let now = self.now();
        *self.slot.live.lock() = None;
        self.supervision.ended(now, &cause);
        let stats = std::mem::take(&mut *self.slot.beat.lock()).stats;
        self.slot.ended_stats.lock().merge(&stats.without_gauges());
        let state = self.state();
        self.slot.set_status(|status| {
            status.state = state;
            (status.pid, status.sandbox) = (None, None);
            (status.memory, status.memory_private) = (0, 0);
            status.last_exit = Some(cause.clone());
        });
        process.output.close();
        if let Some(connection) = self.connection.take() {
            connection.lose(&format!("{} {cause}", self.slot.title()));
        }
    }

    /// Returns the state for the phase.
    fn state(&self) -> WorkerState {
        match self.supervision.phase() {
            Phase::Waiting(_) | Phase::Starting => WorkerState::Starting(0.0),
            Phase::Ready => WorkerState::Ready,
            Phase::Draining { .. } | Phase::Ending { .. } => WorkerState::Stopping,
            Phase::Stopped => WorkerState::Stopped,
            Phase::Failed(cause) => WorkerState::Failed(cause.clone()),
        }
    }

    /// Executes due actions.
    fn act(&mut self) {
        loop {
            let open = self.connection.as_ref().map_or(0, |connection| connection.len());
            let now = self.now();
            match self.supervision.poll(now, open) {
                None => return,
                Some(Action::Start) => self.start_process(),
                Some(Action::Kill(cause)) => {
                    if let Some(process) = &mut self.process {
                        process.kill(cause);
                    }
                }
                Some(Action::Stop { abort }) => {
                    if let Some(process) = &self.process {
                        // The message cannot be too long.
                        let _ = process.output.send(&crate::frame::ToWorker::Stop { abort });
                    }
                }
            }
        }
    }

    fn start_process(&mut self) {
        let options = &self.slot.options;
        let setup = Setup {
            worker: options.number,
            backend: options.backend.clone(),
            model: options.model.clone(),
            packed_cache: options.packed_cache.clone(),
            // The limit applies to the host's queue.
            engine: options.engine.clone().queue_max(usize::MAX / 2).user_queue_max(None),
            host: options.host.clone(),
            sandbox: options.sandbox.clone(),
            memory_max: options.memory_max,
            progress: Arc::default(),
        };
        let is_restart = self.number > 0;
        self.number += 1;
        (self.receiver_ended, self.exited_at, self.ticks) = (false, None, 0);
        *self.slot.next_beat.lock() = None;
        (self.cost, self.load_failed) = (StepCost::default(), None);
        let started = Process::start(options, &setup).and_then(|(process, receiver)| {
            let (number, sender, slot) = (self.number, self.sender.clone(), self.slot.clone());
            let spawned = thread::Builder::new().name("exsa-from-worker".into()).spawn(move || {
                let beat = |beat| *slot.next_beat.lock() = Some(beat);
                receive(receiver, beat, |step| report(&sender, number, step));
            });
            self.process = Some(process);
            spawned.map(drop).map_err(|error| format!("a thread: {error}"))
        });
        let now = self.now();
        self.supervision.started(now);
        let pid = self.process.as_ref().map(Process::id);
        self.slot.set_status(|status| {
            status.restarts += u64::from(is_restart);
            status.state = WorkerState::Starting(0.0);
            status.pid = pid;
        });
        if let Err(problem) = started {
            let cause = ExitCause::Spawn(problem);
            match &mut self.process {
                Some(process) => {
                    process.kill(cause);
                    self.receiver_ended = true;
                }
                None => {
                    self.supervision.ended(now, &cause);
                    let state = self.state();
                    self.slot.set_status(|status| (status.state, status.last_exit) = (state, Some(cause)));
                }
            }
        }
    }

    fn publish(&mut self) {
        let open = self.connection.as_ref().map_or(0, |connection| connection.len());
        let state = self.state();
        self.slot.set_status(|status| {
            status.open = open;
            // The loaded share is set by heartbeats.
            if !matches!((&state, &status.state), (WorkerState::Starting(_), WorkerState::Starting(_))) {
                status.state = state;
            }
        });
    }

    /// Ends the process immediately.
    fn quit(&mut self) {
        self.supervision.stop(self.now(), true);
        self.close_if_draining();
        let Some(process) = &mut self.process else { return };
        process.kill(ExitCause::Stopped);
        process.wait();
        // Delivers the messages that it has sent.
        let until = Instant::now() + LINGER;
        while !self.receiver_ended {
            let left = until.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) => self.handle(message),
                Err(_) => break,
            }
        }
        self.ended();
    }
}

/// Forwards a step, and waits for the connection if it has one.
fn report(sender: &Sender<Message>, number: u64, step: Step) -> Option<Arc<Connection>> {
    if !matches!(step, Step::Ready(_)) {
        // A supervisor that has exited needs no steps.
        let _ = sender.send(Message::Step(number, step, None));
        return None;
    }
    let (answer, connection) = std::sync::mpsc::channel();
    sender.send(Message::Step(number, step, Some(answer))).ok()?;
    connection.recv().ok().flatten()
}
