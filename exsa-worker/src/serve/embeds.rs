//! Embedding and reranking requests in a worker.

use super::jobs::Jobs;
use super::service::Counters;
use crate::frame::{FromWorker, WireEmbedError, WireEmbedOutput, WireScores};
use crate::output::Output;
use exsa_core::embed::{EmbedOutput, Pending, RerankOutput};
use exsa_core::{Engine, ErrorReport, SubmitError};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};

pub(super) struct Embeds {
    output: Arc<Output>,
    jobs: Arc<Jobs>,
    counters: Arc<Counters>,
    open: Mutex<HashMap<u64, Entry>>,
}

enum Entry {
    Preparing,
    Vectors(Pending<EmbedOutput>),
    Scores(Pending<RerankOutput>),
}

impl Embeds {
    pub(super) fn new(output: Arc<Output>, jobs: Arc<Jobs>, counters: Arc<Counters>) -> Self {
        Self { output, jobs, counters, open: Mutex::default() }
    }

    /// Requests in the engine.
    pub(super) fn open(&self) -> u64 {
        self.open.lock().values().filter(|entry| !matches!(entry, Entry::Preparing)).count() as u64
    }

    /// Registers a request before its submission.
    pub(super) fn begin(&self, id: u64) -> Result<(), String> {
        match self.open.lock().insert(id, Entry::Preparing) {
            None => Ok(()),
            Some(_) => Err(format!("the host uses the request id {id} twice")),
        }
    }

    pub(super) fn embed(self: &Arc<Self>, id: u64, request: &str, engine: Option<&Engine>) {
        match prepare(request, engine, Engine::embed) {
            Ok(pending) => self.enter(id, Entry::Vectors(pending)),
            Err(error) => self.end_vectors(id, Err(error)),
        }
    }

    pub(super) fn rerank(self: &Arc<Self>, id: u64, request: &str, engine: Option<&Engine>) {
        match prepare(request, engine, Engine::rerank) {
            Ok(pending) => self.enter(id, Entry::Scores(pending)),
            Err(error) => self.end_scores(id, Err(error)),
        }
    }

    fn enter(self: &Arc<Self>, id: u64, entry: Entry) {
        let mut open = self.open.lock();
        // Otherwise it was cancelled during its preparation, and the host has its answer.
        if let Some(place) = open.get_mut(&id) {
            *place = entry;
            drop(open);
            self.poll(id);
        }
    }

    /// Sends the output of a request if it is ready.
    fn poll(self: &Arc<Self>, id: u64) {
        let waker = Waker::from(Arc::new(Woken { id, embeds: self.clone() }));
        let mut context = Context::from_waker(&waker);
        let mut open = self.open.lock();
        match open.get_mut(&id) {
            Some(Entry::Vectors(pending)) => {
                let Poll::Ready(output) = Pin::new(pending).poll(&mut context) else { return };
                drop(open);
                self.end_vectors(id, crate::frame::embeddings(output));
            }
            Some(Entry::Scores(pending)) => {
                let Poll::Ready(output) = Pin::new(pending).poll(&mut context) else { return };
                drop(open);
                self.end_scores(id, crate::frame::scores(output));
            }
            Some(Entry::Preparing) | None => {}
        }
    }

    fn end_vectors(&self, id: u64, output: WireEmbedOutput) {
        if self.open.lock().remove(&id).is_none() {
            return;
        }
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.output.send(&FromWorker::Embedded { id, output }) {
            let report = ErrorReport::new("generator", format!("the vectors: {error}"));
            let output = Err(WireEmbedError::Failed(serde_json::to_string(&report).unwrap_or_default()));
            let _ = self.output.send(&FromWorker::Embedded { id, output });
        }
    }

    fn end_scores(&self, id: u64, output: WireScores) {
        if self.open.lock().remove(&id).is_none() {
            return;
        }
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.output.send(&FromWorker::Scored { id, output }) {
            let report = ErrorReport::new("generator", format!("the scores: {error}"));
            let output = Err(WireEmbedError::Failed(serde_json::to_string(&report).unwrap_or_default()));
            let _ = self.output.send(&FromWorker::Scored { id, output });
        }
    }

    /// Cancels a request.
    pub(super) fn cancel(&self, id: u64) {
        let entry = self.open.lock().remove(&id);
        let error = Err(WireEmbedError::Cancelled);
        let message = match entry {
            None => return,
            Some(Entry::Scores(_)) => FromWorker::Scored { id, output: Err(WireEmbedError::Cancelled) },
            Some(Entry::Vectors(_) | Entry::Preparing) => FromWorker::Embedded { id, output: error },
        };
        let _ = self.output.send(&message);
    }
}

fn prepare<R: DeserializeOwned, T>(
    request: &str,
    engine: Option<&Engine>,
    submit: impl FnOnce(&Engine, R) -> Result<Pending<T>, SubmitError>,
) -> Result<Pending<T>, WireEmbedError> {
    let prepared = catch_unwind(AssertUnwindSafe(|| {
        let request = serde_json::from_str(request)
            .map_err(|error| ErrorReport::new("option", format!("the request: {error}")))?;
        let engine = engine.ok_or_else(|| ErrorReport::new("shutting_down", "there is no engine"))?;
        submit(engine, request).map_err(|error| ErrorReport::from(&error))
    }));
    let report = match prepared {
        Ok(Ok(pending)) => return Ok(pending),
        Ok(Err(report)) => report,
        Err(panic) => {
            let problem = format!("the preparation of the request panicked: {}", super::panic_text(&*panic));
            ErrorReport::new("generator", problem)
        }
    };
    Err(WireEmbedError::Failed(serde_json::to_string(&report).unwrap_or_default()))
}

/// Waker that polls a request when its output is ready.
struct Woken {
    id: u64,
    embeds: Arc<Embeds>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let jobs = self.embeds.jobs.clone();
        jobs.push(move || self.embeds.poll(self.id));
    }
}
