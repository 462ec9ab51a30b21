//! Requests of one worker process, and delivery of its messages.

use super::open::{Open, OpenEmbed, OpenRerank};
use crate::frame::{FrameError, FromWorker, ToWorker, embed_output, error_of, rerank_output};
use crate::output::Output;
use exsa_core::embed::EmbedError;
use exsa_core::stream::{Finished, QueuePosition};
use exsa_core::{EngineInfo, FinishReason, RequestError, RequestValidator};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests of one worker process.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) output: Arc<Output>,
    pub(super) validator: Arc<RequestValidator>,
    open: Mutex<Table>,
    /// Number of requests sent.
    pub(super) sent: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    requests: HashMap<u64, Arc<Open>>,
    /// Whether no more requests are accepted: the process is draining or has exited.
    closed: bool,
    next: u64,
}

impl Connection {
    pub(super) fn new(output: Arc<Output>, validator: Arc<RequestValidator>) -> Self {
        Self { output, validator, open: Mutex::default(), sent: AtomicU64::new(0) }
    }

    /// Registers a request and sends its message; returns `false` if no more are accepted.
    pub(super) fn enter(
        &self,
        request: impl FnOnce(u64) -> Open,
        message: impl FnOnce(u64) -> ToWorker,
    ) -> Result<bool, FrameError> {
        let mut table = self.open.lock();
        if table.closed {
            return Ok(false);
        }
        let id = table.next;
        table.next += 1;
        // Sent under the lock, so that no drain happens in between.
        self.output.send(&message(id))?;
        table.requests.insert(id, Arc::new(request(id)));
        drop(table);
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Number of open requests.
    pub(super) fn len(&self) -> usize {
        self.open.lock().requests.len()
    }

    /// Upper bound on the tokens of the next pass: those of prompts that have not begun to answer.
    pub(super) fn prompt_tokens(&self) -> u64 {
        let table = self.open.lock();
        table.requests.values().map(|open| open.prompt_tokens()).fold(0, u64::saturating_add)
    }

    /// Returns whether no more requests are accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.open.lock().closed
    }

    /// Stops accepting requests.
    pub(super) fn close(&self) {
        self.open.lock().closed = true;
    }

    /// Fails all requests, since the process has exited.
    pub(super) fn lose(&self, reason: &str) {
        let mut table = self.open.lock();
        table.closed = true;
        let requests = std::mem::take(&mut table.requests);
        drop(table);
        self.output.close();
        let mut requests: Vec<_> = requests.into_iter().collect();
        // In the order of submission, which is kept if they are submitted again.
        requests.sort_unstable_by_key(|(id, _)| *id);
        for (_, request) in requests {
            request.fail(RequestError::Lost(reason.into()));
        }
    }

    fn find(&self, id: u64) -> Result<Arc<Open>, FrameError> {
        let found = self.open.lock().requests.get(&id).cloned();
        found.ok_or_else(|| FrameError::Content(format!("request {id} is not open")))
    }

    fn remove(&self, id: u64) {
        let removed = self.open.lock().requests.remove(&id);
        drop(removed);
    }

    /// Stops accepting requests if the error says that the engine has stopped. This happens before the error
    /// is delivered, since its request is immediately retried, and must not be retried here.
    fn heed(&self, error: Option<&RequestError>) -> bool {
        let ended = error.is_some_and(RequestError::is_lost_engine);
        if ended {
            self.close();
        }
        ended
    }

    /// Delivers a message about a request. Returns whether it says that the engine has stopped.
    ///
    /// # Errors
    ///
    /// The protocol violation of the worker.
    pub(super) fn deliver(&self, message: FromWorker) -> Result<bool, FrameError> {
        let mut engine_ended = false;
        match message {
            FromWorker::Events { id, events } => {
                let open = self.find(id)?;
                let Open::Stream(stream) = &*open else { return Err(wrong(id, "text")) };
                let heed = |finished: &Finished| engine_ended = self.heed(finished.reason.error());
                if stream.deliver(events.0, heed)? {
                    self.remove(id);
                }
            }
            FromWorker::Refused { id, error } => {
                let open = self.find(id)?;
                let Open::Stream(stream) = &*open else { return Err(wrong(id, "text")) };
                let error = error_of(&error)?;
                engine_ended = self.heed(Some(&error));
                self.remove(id);
                stream.end(Finished::new(FinishReason::Failed(error)));
            }
            FromWorker::Embedded { id, output } => {
                let open = self.find(id)?;
                match &*open {
                    Open::Embed(OpenEmbed { sender, texts }) => {
                        let output = embed_output(output, *texts)?;
                        engine_ended = self.heed(failure(&output));
                        self.remove(id);
                        sender.lock().take().into_iter().for_each(|sender| sender.send(output.clone()));
                    }
                    // The request was cancelled before it was read.
                    Open::Rerank(OpenRerank { sender, .. }) if output.is_err() => {
                        self.remove(id);
                        drop(sender.lock().take());
                    }
                    _ => return Err(wrong(id, "vectors")),
                }
            }
            FromWorker::Scored { id, output } => {
                let open = self.find(id)?;
                let Open::Rerank(OpenRerank { sender, texts }) = &*open else {
                    return Err(wrong(id, "scores"));
                };
                let output = rerank_output(output, *texts)?;
                engine_ended = self.heed(failure(&output));
                self.remove(id);
                sender.lock().take().into_iter().for_each(|sender| sender.send(output.clone()));
            }
            FromWorker::Position { id, ahead, wait_ms } => {
                // The request may have ended meanwhile.
                let open = self.open.lock().requests.get(&id).cloned();
                if let Some(Open::Stream(stream)) = open.as_deref() {
                    let ahead = ahead.map(|ahead| usize::try_from(ahead).unwrap_or(usize::MAX));
                    let wait = wait_ms.map(Duration::from_millis);
                    stream.position(ahead.map(|ahead| QueuePosition::new(ahead, wait)));
                }
            }
            FromWorker::Hello(_)
            | FromWorker::Sandboxed(_)
            | FromWorker::Ready { .. }
            | FromWorker::LoadFailed { .. }
            | FromWorker::Beat(_) => {
                return Err(FrameError::Content("a message of the start after the start".into()));
            }
        }
        Ok(engine_ended)
    }

    /// Returns the model information of the engine.
    pub(super) fn info(&self) -> &EngineInfo {
        self.validator.info()
    }
}

/// Returns the error of an embedding or reranking request as a whole.
fn failure<T>(output: &Result<T, EmbedError>) -> Option<&RequestError> {
    match output {
        Err(EmbedError::Failed(error)) => Some(error),
        _ => None,
    }
}

fn wrong(id: u64, kind: &str) -> FrameError {
    FrameError::Content(format!("request {id} is not one for {kind}"))
}
