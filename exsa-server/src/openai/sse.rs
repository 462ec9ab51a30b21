//! Streams of server-sent events from streams of tokens.

use crate::error::ApiError;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use exsa_core::TokenStream;
use futures_core::Stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Turns events of requests into chunks.
pub(super) trait Chunks: Send + Unpin + 'static {
    /// Takes in an event of request `index` and appends the chunks that follow from it.
    ///
    /// # Errors
    ///
    /// The error that the stream ends with.
    fn event(&mut self, index: usize, event: exsa_core::Event, out: &mut Outbox) -> Result<(), ApiError>;

    /// Appends the chunks after the last event.
    fn end(&mut self, out: &mut Outbox);
}

/// Chunks that wait to be sent.
#[derive(Default)]
pub(super) struct Outbox(VecDeque<Event>);

impl Outbox {
    /// Appends a chunk.
    pub(super) fn chunk(&mut self, chunk: &impl Serialize) {
        match serde_json::to_string(chunk) {
            Ok(text) => self.0.push_back(Event::default().data(text)),
            Err(error) => {
                self.0.push_back(Event::default().data(ApiError::internal(error.to_string()).json()))
            }
        }
    }
}

/// The body of a streamed answer. Dropping it, because the client is gone, cancels its requests.
struct Body<C> {
    /// The requests; `None` once read to the end.
    requests: Vec<Option<TokenStream>>,
    chunks: C,
    outbox: Outbox,
    ended: bool,
}

/// A response of server-sent events that ends with `[DONE]`.
pub(super) fn response(requests: Vec<TokenStream>, chunks: impl Chunks, keep_alive: Duration) -> Response {
    let requests = requests.into_iter().map(Some).collect();
    let body = Body { requests, chunks, outbox: Outbox::default(), ended: false };
    let mut response = Sse::new(body).keep_alive(KeepAlive::new().interval(keep_alive)).into_response();
    // Proxies such as nginx would collect the events otherwise.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

impl<C: Chunks> Body<C> {
    /// Reads the events that are here. Returns whether any stream made progress.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Result<bool, ApiError> {
        let mut progress = false;
        for (index, slot) in self.requests.iter_mut().enumerate() {
            let Some(stream) = slot else { continue };
            match stream.poll_event(context) {
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

    fn close(&mut self) {
        self.ended = true;
        self.requests.clear();
        self.outbox.0.push_back(Event::default().data("[DONE]"));
    }
}

impl<C: Chunks> Stream for Body<C> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = &mut *self;
        loop {
            if let Some(event) = body.outbox.0.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if body.ended {
                return Poll::Ready(None);
            }
            match body.poll_requests(context) {
                Ok(true) => {}
                Ok(false) if body.requests.iter().all(Option::is_none) => {
                    body.chunks.end(&mut body.outbox);
                    body.close();
                }
                Ok(false) => return Poll::Pending,
                Err(error) => {
                    body.outbox.0.push_back(Event::default().data(error.json()));
                    body.close();
                }
            }
        }
    }
}
