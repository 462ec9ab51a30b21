//! Generation requests in a worker.

use super::service::Counters;
use super::sink::Sink;
use crate::frame::FromWorker;
use crate::output::Output;
use exsa_core::stream::StreamHandle;
use exsa_core::{Engine, ErrorReport, Request};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Time for the engine to report a queue position.
const POSITION_WAIT: Duration = Duration::from_millis(200);

pub(super) struct Requests {
    output: Arc<Output>,
    counters: Arc<Counters>,
    open: Mutex<HashMap<u64, Entry>>,
    /// Requests whose end was sent and whose handles are still to be dropped: the end is sent while the
    /// stream is locked.
    ended: Mutex<HashSet<u64>>,
    /// Requests in the engine that have not ended.
    in_engine: AtomicU64,
}

#[derive(Default)]
struct Entry {
    paused: Arc<AtomicBool>,
    cancelled: bool,
    /// `None` during preparation.
    handle: Option<Arc<StreamHandle>>,
}

impl Requests {
    pub(super) fn new(output: Arc<Output>, counters: Arc<Counters>) -> Self {
        Self {
            output,
            counters,
            open: Mutex::default(),
            ended: Mutex::default(),
            in_engine: AtomicU64::new(0),
        }
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn open(&self) -> u64 {
        self.in_engine.load(Ordering::Relaxed)
    }

    /// Registers a request before its submission.
    pub(super) fn begin(&self, id: u64) -> Result<(), String> {
        self.reap();
        match self.open.lock().insert(id, Entry::default()) {
            None => Ok(()),
            Some(_) => Err(format!("the host uses the request id {id} twice")),
        }
    }

    /// Prepares a request and submits it to the engine.
    pub(super) fn submit(self: &Arc<Self>, id: u64, request: &str, engine: Option<&Engine>) {
        let prepared = catch_unwind(AssertUnwindSafe(|| {
            let refuse = |kind: &str, problem: String| ErrorReport::new(kind, problem);
            let request: Request = serde_json::from_str(request)
                .map_err(|error| refuse("option", format!("the request: {error}")))?;
            let engine = engine.ok_or_else(|| refuse("shutting_down", "there is no engine".into()))?;
            engine.submit(request).map_err(|error| ErrorReport::from(&error))
        }));
        let stream = match prepared {
            Ok(Ok(stream)) => stream,
            Ok(Err(report)) => return self.refuse(id, &report),
            Err(panic) => {
                let problem =
                    format!("the preparation of the request panicked: {}", super::panic_text(&*panic));
                return self.refuse(id, &ErrorReport::new("generator", problem));
            }
        };
        let paused = self.open.lock().get(&id).map(|entry| entry.paused.clone()).unwrap_or_default();
        let n = self.in_engine.fetch_add(1, Ordering::Relaxed) + 1;
        self.output.linger(n > 1);
        let sink = Sink { id, requests: self.clone(), paused, done: false };
        let handle = Arc::new(stream.pipe(Box::new(sink)));
        let mut open = self.open.lock();
        let cancelled = open.get_mut(&id).is_some_and(|entry| {
            entry.handle = Some(handle.clone());
            entry.cancelled
        });
        drop(open);
        if cancelled {
            handle.cancel();
        }
    }

    fn refuse(&self, id: u64, report: &ErrorReport) {
        self.open.lock().remove(&id);
        let error = serde_json::to_string(report).unwrap_or_default();
        let _ = self.output.send(&FromWorker::Refused { id, error });
    }

    /// Records that a request's last event was sent.
    pub(super) fn ended(&self, id: u64) {
        if self.ended.lock().insert(id) {
            let n = self.in_engine.fetch_sub(1, Ordering::Relaxed) - 1;
            self.output.linger(n > 1);
        }
    }

    /// Drops the handles of requests that have ended.
    pub(super) fn reap(&self) {
        let mut open = self.open.lock();
        let mut dropped = Vec::new();
        self.ended.lock().retain(|id| match open.get(id) {
            // Its handle is about to be stored.
            Some(entry) if entry.handle.is_none() => true,
            _ => {
                dropped.extend(open.remove(id));
                false
            }
        });
        drop(open);
        drop(dropped);
    }

    fn handle(&self, id: u64) -> Option<Arc<StreamHandle>> {
        self.open.lock().get(&id)?.handle.clone()
    }

    /// Cancels a request. It is not an error if it has already ended.
    pub(super) fn cancel(&self, id: u64) {
        if let Some(entry) = self.open.lock().get_mut(&id) {
            entry.cancelled = true;
        }
        if let Some(handle) = self.handle(id) {
            handle.cancel();
        }
    }

    pub(super) fn pause(&self, id: u64) {
        if let Some(entry) = self.open.lock().get(&id) {
            entry.paused.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn drained(&self, id: u64) {
        if let Some(entry) = self.open.lock().get(&id) {
            entry.paused.store(false, Ordering::Relaxed);
        }
        if let Some(handle) = self.handle(id) {
            handle.drained();
        }
    }

    /// Resumes all streams that the host has not paused.
    pub(super) fn drained_all(&self) {
        let handles: Vec<_> = self
            .open
            .lock()
            .values()
            .filter(|entry| !entry.paused.load(Ordering::Relaxed))
            .filter_map(|entry| entry.handle.clone())
            .collect();
        handles.iter().for_each(|handle| handle.drained());
    }

    /// Reports a request's queue position to the host.
    pub(super) fn position(&self, id: u64) {
        let position = self.handle(id).and_then(|handle| handle.queue_position(POSITION_WAIT));
        let ahead = position.map(|position| position.ahead as u64);
        let wait = position.and_then(|position| position.estimated_wait);
        let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let _ = self.output.send(&FromWorker::Position { id, ahead, wait_ms });
    }
}
