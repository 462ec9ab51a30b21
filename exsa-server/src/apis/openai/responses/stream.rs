//! Streamed responses.

use super::builder::Builder;
use super::running::Running;
use super::store::Keeper;
use crate::http::error::ApiError;
use crate::http::stream::{Chunks, Outbox};
use exsa_core::Event;

/// The events of one response.
pub(super) struct ResponseChunks {
    builder: Builder,
    running: Running,
    /// Stores the response when it has ended.
    keeper: Option<Keeper>,
}

impl ResponseChunks {
    pub(super) fn new(builder: Builder, running: Running, keeper: Option<Keeper>) -> Self {
        Self { builder, running, keeper }
    }

    /// Processes an event; a cancelled request is not an error if its caller cancelled it.
    pub(super) fn take(&mut self, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        match self.builder.event(event, out) {
            Err(_) if self.running.is_cancelled() => {
                self.builder.cancel(out);
                Ok(())
            }
            result => result,
        }
    }

    /// Stores the response and returns it.
    pub(super) fn close(&mut self) -> serde_json::Value {
        let response = self.builder.response();
        if let Some(keeper) = self.keeper.take() {
            keeper.keep(self.builder.id(), &response);
        }
        response
    }
}

impl Chunks for ResponseChunks {
    fn begin(&mut self, out: &mut Outbox) {
        self.builder.begin(out);
    }

    fn event(&mut self, _: usize, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        self.take(event, out)
    }

    fn end(&mut self, out: &mut Outbox) {
        self.close();
        self.builder.end(out);
    }

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        self.builder.fail(error, out);
        self.close();
        self.builder.end(out);
    }
}
