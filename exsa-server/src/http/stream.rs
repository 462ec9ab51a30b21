//! Streamed answers: server-sent events, or NDJSON lines.

use crate::access;
use crate::http::error::ApiError;
use crate::inference::work::Work;
use axum::body::{Body as HttpBody, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Converts request events to the chunks of an API.
pub(crate) trait Chunks: Send + Unpin + 'static {
    /// Appends the chunks before the first event.
    fn begin(&mut self, _: &mut Outbox) {}

    /// Processes an event of request `index` and appends the resulting chunks.
    ///
    /// # Errors
    ///
    /// The error with which the stream ends.
    fn event(&mut self, index: usize, event: exsa_core::Event, out: &mut Outbox) -> Result<(), ApiError>;

    /// Appends the chunks after the last event.
    fn end(&mut self, out: &mut Outbox);

    /// Appends the last chunks of a failed stream.
    fn error(&mut self, error: &ApiError, out: &mut Outbox);
}

/// Chunks waiting to be sent.
#[derive(Default)]
pub(crate) struct Outbox(VecDeque<Chunk>);

/// One event of a stream, or one line.
struct Chunk {
    name: Option<&'static str>,
    data: String,
}

impl Outbox {
    /// Appends a chunk as JSON.
    pub(crate) fn chunk(&mut self, chunk: &impl Serialize) {
        self.push(None, chunk);
    }

    /// Appends a chunk with an event name.
    pub(crate) fn named(&mut self, name: &'static str, chunk: &impl Serialize) {
        self.push(Some(name), chunk);
    }

    /// Appends a text that is not JSON.
    pub(crate) fn text(&mut self, data: impl Into<String>) {
        self.0.push_back(Chunk { name: None, data: data.into() });
    }

    fn push(&mut self, name: Option<&'static str>, chunk: &impl Serialize) {
        // Chunks are structs of numbers and strings, which can always be serialized.
        let data = serde_json::to_string(chunk).unwrap_or_else(|error| error.to_string());
        self.0.push_back(Chunk { name, data });
    }
}

/// The chunks of requests. Dropping them, as when the client disconnects, cancels the requests.
struct Answers<C> {
    /// The requests; `None` once read to the end.
    requests: Vec<Option<Work>>,
    chunks: C,
    outbox: Outbox,
    ended: bool,
}

impl<C: Chunks> Answers<C> {
    fn new(requests: Vec<Work>, mut chunks: C) -> Self {
        let requests = requests.into_iter().map(Some).collect();
        let mut outbox = Outbox::default();
        chunks.begin(&mut outbox);
        Self { requests, chunks, outbox, ended: false }
    }

    /// Polls one event of each request. Returns whether there was any.
    ///
    /// # Errors
    ///
    /// The error with which the stream ends, also if the caller's key was revoked.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Result<bool, ApiError> {
        let mut progress = false;
        for (index, slot) in self.requests.iter_mut().enumerate() {
            let Some(work) = slot else { continue };
            if work.poll_revoked(context) {
                return Err(access::revoked());
            }
            match work.poll_event(context) {
                Poll::Pending => {}
                Poll::Ready(Some(event)) => {
                    progress = true;
                    self.chunks.event(index, event, &mut self.outbox)?;
                }
                Poll::Ready(None) => {
                    progress = true;
                    *slot = None;
                }
            }
        }
        Ok(progress)
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        loop {
            if let Some(chunk) = self.outbox.0.pop_front() {
                return Poll::Ready(Some(chunk));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match self.poll_requests(context) {
                Ok(true) => {}
                Ok(false) if self.requests.iter().all(Option::is_none) => {
                    self.ended = true;
                    self.chunks.end(&mut self.outbox);
                }
                Ok(false) => return Poll::Pending,
                Err(error) => {
                    self.ended = true;
                    self.requests.clear();
                    self.chunks.error(&error, &mut self.outbox);
                }
            }
        }
    }
}

/// Answers as server-sent events.
struct Events<C>(Answers<C>);

impl<C: Chunks> Stream for Events<C> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_chunk(context).map(|chunk| {
            let chunk = chunk?;
            let event = match chunk.name {
                Some(name) => Event::default().event(name),
                None => Event::default(),
            };
            Some(Ok(event.data(chunk.data)))
        })
    }
}

/// Answers as lines of JSON.
struct Lines<C>(Answers<C>);

impl<C: Chunks> Stream for Lines<C> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_chunk(context).map(|chunk| {
            let mut line = chunk?.data;
            line.push('\n');
            Some(Ok(line.into()))
        })
    }
}

/// A response of server-sent events.
pub(crate) fn events(requests: Vec<Work>, chunks: impl Chunks, keep_alive: Duration) -> Response {
    let events = Sse::new(Events(Answers::new(requests, chunks)));
    unbuffered(events.keep_alive(KeepAlive::new().interval(keep_alive)).into_response())
}

/// A response of lines of JSON (NDJSON).
pub(crate) fn lines(requests: Vec<Work>, chunks: impl Chunks) -> Response {
    let lines = HttpBody::from_stream(Lines(Answers::new(requests, chunks)));
    unbuffered(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

/// Tells proxies such as nginx not to buffer the chunks.
fn unbuffered(mut response: Response) -> Response {
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
