//! State shared by the threads of a worker.

use super::embeds::Embeds;
use super::jobs::Jobs;
use super::requests::Requests;
use super::{EXIT_PANICKED, LAST_WORDS};
use crate::frame::{FromWorker, ToWorker};
use crate::output::Output;
use exsa_core::{Engine, Shutdown};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Poll interval while the engine shuts down.
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct Service {
    engine: OnceLock<Engine>,
    output: Arc<Output>,
    jobs: Arc<Jobs>,
    pub(super) requests: Arc<Requests>,
    pub(super) embeds: Arc<Embeds>,
    pub(super) counters: Arc<Counters>,
    /// Shutdown requested by the host.
    stop: Mutex<Option<Shutdown>>,
    /// Signals a change of `stop`, of the requests, or of the engine.
    changed: Condvar,
}

/// Counts reported by heartbeats.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) preparing: AtomicU64,
    /// Event groups sent and requests ended: indicators of progress.
    pub(super) sent: AtomicU64,
}

impl Service {
    pub(super) fn new(output: Arc<Output>) -> Self {
        let jobs = Arc::new(Jobs::default());
        let counters = Arc::new(Counters::default());
        Self {
            engine: OnceLock::new(),
            requests: Arc::new(Requests::new(output.clone(), counters.clone())),
            embeds: Arc::new(Embeds::new(output.clone(), jobs.clone(), counters.clone())),
            output,
            jobs,
            counters,
            stop: Mutex::new(None),
            changed: Condvar::new(),
        }
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    pub(super) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Opens the service with the engine.
    pub(super) fn open(&self, engine: Engine) {
        // It is called once.
        let _ = self.engine.set(engine);
        self.changed.notify_all();
    }

    pub(super) fn engine(&self) -> Option<&Engine> {
        self.engine.get()
    }

    /// Resumes the streams that were paused because the output was full.
    pub(super) fn resume_all(&self) {
        self.requests.drained_all();
    }

    /// Handles a message from the host.
    ///
    /// # Errors
    ///
    /// The protocol violation of the host.
    pub(super) fn handle(self: &Arc<Self>, message: ToWorker) -> Result<(), String> {
        match message {
            ToWorker::Hello(_) | ToWorker::Setup(_) => return Err("the host greets twice".into()),
            ToWorker::Stop { abort } => {
                let how = if abort { Shutdown::Abort } else { Shutdown::Drain };
                *self.stop.lock() = Some(how);
                self.changed.notify_all();
                return Ok(());
            }
            _ if self.engine().is_none() => {
                return Err("the host sends requests before the engine is ready".into());
            }
            ToWorker::Submit { id, request } => {
                self.received();
                self.requests.begin(id)?;
                let service = self.clone();
                self.jobs.push(move || service.submit(id, &request));
            }
            ToWorker::Embed { id, request } => {
                self.received();
                self.embeds.begin(id)?;
                let service = self.clone();
                self.jobs.push(move || service.embed(id, &request));
            }
            ToWorker::Rerank { id, request } => {
                self.received();
                self.embeds.begin(id)?;
                let service = self.clone();
                self.jobs.push(move || service.rerank(id, &request));
            }
            ToWorker::Cancel { id } => {
                self.requests.cancel(id);
                self.embeds.cancel(id);
            }
            ToWorker::Pause { id } => self.requests.pause(id),
            ToWorker::Drained { id } => self.requests.drained(id),
            ToWorker::Position { id } => {
                let service = self.clone();
                self.jobs.push(move || service.requests.position(id));
            }
            ToWorker::Mode(mode) => self.engine().into_iter().for_each(|engine| engine.set_mode(mode)),
            ToWorker::Fair(options) => self.engine().into_iter().for_each(|engine| engine.set_fair(options)),
        }
        Ok(())
    }

    fn received(&self) {
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        self.counters.preparing.fetch_add(1, Ordering::Relaxed);
    }

    fn submit(&self, id: u64, request: &str) {
        self.requests.submit(id, request, self.engine());
        self.counters.preparing.fetch_sub(1, Ordering::Relaxed);
    }

    fn embed(&self, id: u64, request: &str) {
        self.embeds.embed(id, request, self.engine());
        self.counters.preparing.fetch_sub(1, Ordering::Relaxed);
    }

    fn rerank(&self, id: u64, request: &str) {
        self.embeds.rerank(id, request, self.engine());
        self.counters.preparing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests in the engine.
    pub(super) fn in_engine(&self) -> u64 {
        self.requests.open() + self.embeds.open()
    }

    /// Sends a message that cannot be too long.
    pub(super) fn send(&self, message: &FromWorker) {
        let _ = self.output.send(message);
    }

    /// Waits until the host requests a shutdown and the engine has stopped, or until the engine stops by
    /// itself. Returns the exit code.
    pub(super) fn wait_for_end(&self) -> i32 {
        let mut begun = None;
        loop {
            let mut stop = self.stop.lock();
            self.changed.wait_for(&mut stop, LOOK.max(if begun.is_none() { LOOK * 4 } else { LOOK }));
            let wanted = *stop;
            drop(stop);
            let Some(engine) = self.engine() else { continue };
            if let Some(how) = wanted.filter(|_| begun != wanted) {
                // A drain does not lose requests in preparation: they are refused, and go elsewhere.
                engine.begin_shutdown(how);
                begun = Some(how);
            }
            if engine.is_shut_down() {
                let code = if begun.is_some() { 0 } else { EXIT_PANICKED };
                self.await_refusals();
                return code;
            }
        }
    }

    /// Waits for requests in preparation to be refused.
    fn await_refusals(&self) {
        let until = std::time::Instant::now() + LAST_WORDS;
        while self.counters.preparing.load(Ordering::Relaxed) > 0 && std::time::Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
}
