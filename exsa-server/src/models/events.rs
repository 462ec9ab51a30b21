//! Model changes as server-sent events.

use super::view::{Progress, order, reason};
use crate::http::error::ApiError;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use exsa_core::registry::{Operation, RegistryEvent, Subscription};
use futures_core::Stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Converts a registry event to JSON; `None` for an event without a JSON form.
fn json(event: RegistryEvent) -> Option<Value> {
    Some(match event {
        RegistryEvent::Added { model } => json!({"type": "added", "model": &*model}),
        RegistryEvent::Removed { model } => json!({"type": "removed", "model": &*model}),
        RegistryEvent::State { model, state } => {
            json!({"type": "state", "model": &*model, "state": state.name(), "reason": reason(&state)})
        }
        RegistryEvent::Progress { model, progress } => {
            json!({"type": "progress", "model": &*model, "progress": Progress::from(progress)})
        }
        RegistryEvent::Reload { model, order: taken } => {
            json!({"type": "reload", "model": &*model, "order": order(taken)})
        }
        RegistryEvent::Reloaded { model, error } => {
            json!({"type": "reloaded", "model": &*model, "error": error})
        }
        RegistryEvent::Active { model } => json!({"type": "active", "model": model.as_deref()}),
        RegistryEvent::Missed(count) => json!({"type": "missed", "count": count}),
        _ => return None,
    })
}

/// Name of the model that an event is about.
fn model_of(event: &RegistryEvent) -> Option<&str> {
    match event {
        RegistryEvent::Added { model }
        | RegistryEvent::Removed { model }
        | RegistryEvent::State { model, .. }
        | RegistryEvent::Progress { model, .. }
        | RegistryEvent::Reload { model, .. }
        | RegistryEvent::Reloaded { model, .. } => Some(model),
        _ => None,
    }
}

/// The event's name is its `type`.
fn sse(data: &Value) -> Event {
    let event = match data["type"].as_str() {
        Some(name) => Event::default().event(name),
        None => Event::default(),
    };
    event.data(data.to_string())
}

/// All changes, beginning with the initial state.
pub(super) struct Changes {
    pub(super) first: Option<Value>,
    pub(super) changes: Subscription,
}

impl Stream for Changes {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(sse(&first))));
        }
        loop {
            match Pin::new(&mut self.changes).poll_next(context) {
                Poll::Ready(Some(event)) => {
                    if let Some(data) = json(event) {
                        return Poll::Ready(Some(Ok(sse(&data))));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Changes of one model while an operation on it runs, then `done` or `error`.
pub(super) struct Watched<T, F> {
    pub(super) model: String,
    pub(super) changes: Subscription,
    /// The operation, until its end was sent.
    pub(super) operation: Option<Operation<T>>,
    /// Creates the data of `done`.
    pub(super) done: F,
}

impl<T: Clone, F: Fn(&str, T) -> Value + Unpin> Stream for Watched<T, F> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { model, changes, operation, done } = &mut *self;
        let Some(running) = operation else { return Poll::Ready(None) };
        // Polled before the changes are read, so that all earlier changes are sent before the end.
        let outcome = Pin::new(running).poll(context);
        while let Poll::Ready(Some(event)) = Pin::new(&mut *changes).poll_next(context) {
            let concerns = model_of(&event).is_none_or(|name| name == model);
            if let Some(data) = json(event).filter(|_| concerns) {
                return Poll::Ready(Some(Ok(sse(&data))));
            }
        }
        let Poll::Ready(outcome) = outcome else { return Poll::Pending };
        *operation = None;
        Poll::Ready(Some(Ok(sse(&match outcome {
            Ok(value) => done(model, value),
            Err(error) => {
                let mut data = ApiError::from(error).json();
                (data["type"], data["model"]) = ("error".into(), model.as_str().into());
                data
            }
        }))))
    }
}

/// A response of events.
pub(super) fn respond(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
    keep_alive: Duration,
) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(keep_alive)).into_response();
    // Proxies such as nginx must not buffer the events.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}
