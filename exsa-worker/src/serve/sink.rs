//! Forwards the engine's streams to the output.

use super::requests::Requests;
use crate::frame::{Bounded, EVENTS_MAX, FromWorker, WireEvent};
use exsa_core::stream::{EventSink, Finished};
use exsa_core::{Event, FinishReason, RequestError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sends the events of one request.
pub(super) struct Sink {
    pub(super) id: u64,
    pub(super) requests: Arc<Requests>,
    /// Whether the host has asked for a pause.
    pub(super) paused: Arc<AtomicBool>,
    /// Whether the last event was sent.
    pub(super) done: bool,
}

impl EventSink for Sink {
    fn events(&mut self, events: &mut Vec<Event>) -> bool {
        if self.done {
            events.clear();
            return false;
        }
        self.done = matches!(events.last(), Some(Event::Finished(_)));
        if let Err(problem) = self.send(events) {
            // For example a prompt's log-probabilities that exceed a frame. The request cannot continue.
            let reason = FinishReason::Failed(RequestError::Generator(problem));
            let mut end = vec![Event::Finished(Finished::new(reason))];
            let _ = self.send(&mut end);
            self.done = true;
        }
        if self.done {
            // The handle is dropped soon, which cancels the rest.
            self.requests.ended(self.id);
        }
        !self.paused.load(Ordering::Relaxed) && !self.requests.output().is_full()
    }
}

impl Sink {
    fn send(&self, events: &mut Vec<Event>) -> Result<(), String> {
        let (id, output) = (self.id, self.requests.output());
        let events = events.drain(..).map(WireEvent::new).collect::<Result<Vec<_>, _>>();
        let mut events = events.map_err(|error| error.to_string())?;
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(EVENTS_MAX));
            let message = FromWorker::Events { id, events: Bounded(events) };
            output.send(&message).map_err(|error| error.to_string())?;
            events = rest;
        }
        self.requests.counters().sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
