//! Reply of a prompt store to a read.

use super::EntryId;
use crate::engine::Mailbox;
use crate::engine::mailbox::Command;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Sends the result of a read to the engine that requested it, and wakes the engine.
pub struct ReadReply {
    entry: EntryId,
    mailbox: Arc<Mailbox>,
    sent: bool,
}

/// The result of a read: the record and the duration of the read, or the reason for the failure.
#[derive(Debug)]
pub(crate) struct ReadEnd {
    pub(crate) entry: EntryId,
    pub(crate) result: Result<(Vec<u8>, Duration), String>,
}

impl ReadReply {
    pub(crate) fn new(entry: EntryId, mailbox: Arc<Mailbox>) -> Self {
        Self { entry, mailbox, sent: false }
    }

    /// Sends the record. `elapsed` is the duration of the read itself, without waiting time in the store's
    /// queue.
    pub fn done(mut self, record: Vec<u8>, elapsed: Duration) {
        self.send(Ok((record, elapsed)));
    }

    /// Reports why there is no record.
    pub fn failed(mut self, reason: impl Into<String>) {
        self.send(Err(reason.into()));
    }

    fn send(&mut self, result: Result<(Vec<u8>, Duration), String>) {
        self.sent = true;
        // An engine that has ended ignores the reply.
        let _ = self.mailbox.post(Command::PromptRead(ReadEnd { entry: self.entry, result }));
    }
}

impl Drop for ReadReply {
    fn drop(&mut self) {
        if !self.sent {
            self.send(Err("the read was abandoned".to_owned()));
        }
    }
}

impl fmt::Debug for ReadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadReply").field("entry", &self.entry).finish_non_exhaustive()
    }
}
