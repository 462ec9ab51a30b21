//! The way of a read back to the engine.

use super::EntryId;
use crate::engine::Mailbox;
use crate::engine::mailbox::Command;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Takes the result of a read to the engine that asked for it, and wakes it.
pub struct ReadReply {
    entry: EntryId,
    mailbox: Arc<Mailbox>,
    sent: bool,
}

/// The end of a read: the record and the time that the read took, or the reason for which there is none.
#[derive(Debug)]
pub(crate) struct ReadEnd {
    pub(crate) entry: EntryId,
    pub(crate) result: Result<(Vec<u8>, Duration), String>,
}

impl ReadReply {
    pub(crate) fn new(entry: EntryId, mailbox: Arc<Mailbox>) -> Self {
        Self { entry, mailbox, sent: false }
    }

    /// Sends the record, which took `elapsed` to read once its turn had come.
    pub fn done(mut self, record: Vec<u8>, elapsed: Duration) {
        self.send(Ok((record, elapsed)));
    }

    /// Says why there is no record.
    pub fn failed(mut self, reason: impl Into<String>) {
        self.send(Err(reason.into()));
    }

    fn send(&mut self, result: Result<(Vec<u8>, Duration), String>) {
        self.sent = true;
        // An engine that has ended needs no KV.
        let _ = self.mailbox.post(Command::PromptRead(ReadEnd { entry: self.entry, result }));
    }
}

impl Drop for ReadReply {
    fn drop(&mut self) {
        if !self.sent {
            self.send(Err("the read was given up".to_owned()));
        }
    }
}

impl fmt::Debug for ReadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadReply").field("entry", &self.entry).finish_non_exhaustive()
    }
}
