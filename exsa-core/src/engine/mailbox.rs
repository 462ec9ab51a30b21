//! Commands from other threads, which the engine takes between its steps.

use crate::engine::embed_job::EmbedJob;
use crate::engine::request_state::RequestState;
use crate::schedule::sched_request::SchedRequest;
use crate::schedule::scheduler::Mode;
use crate::speculate::Speculation;
use crate::token::RequestId;
use parking_lot::{Condvar, Mutex};
use std::time::Duration;

pub(crate) enum Command {
    Submit(Box<RequestState>, Box<SchedRequest>),
    Embed(Box<EmbedJob>),
    Cancel(RequestId),
    Resume(RequestId),
    Mode(Mode),
    Speculate(Option<Box<Speculation>>),
    Position(RequestId),
}

/// How an engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Shutdown {
    /// Requests that were accepted are answered to the end first.
    Drain,
    /// Requests end at once, as cancelled.
    Abort,
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    shutdown: Option<Shutdown>,
    /// The engine has gone: nothing will be read again.
    closed: bool,
}

/// The inbox of one engine.
#[derive(Default)]
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

impl Mailbox {
    /// Leaves a command; gives it back where the engine no longer takes it.
    pub(crate) fn post(&self, command: Command) -> Result<(), Command> {
        let mut inbox = self.inbox.lock();
        if inbox.closed
            || inbox.shutdown.is_some() && matches!(command, Command::Submit(..) | Command::Embed(_))
        {
            return Err(command);
        }
        inbox.commands.push(command);
        drop(inbox);
        self.arrived.notify_one();
        Ok(())
    }

    /// Asks the engine to end; a drain can become an abort, not the other way round.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        let mut inbox = self.inbox.lock();
        inbox.shutdown = inbox.shutdown.max(Some(how));
        drop(inbox);
        self.arrived.notify_one();
    }

    pub(crate) fn shutdown(&self) -> Option<Shutdown> {
        self.inbox.lock().shutdown
    }

    /// Whether no command waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.lock().commands.is_empty()
    }

    /// Takes all commands by swapping them with the empty `into`.
    pub(crate) fn take(&self, into: &mut Vec<Command>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut self.inbox.lock().commands, into);
    }

    /// Takes no more commands; what was left unread is dropped.
    pub(crate) fn close(&self) {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        let unread = std::mem::take(&mut inbox.commands);
        drop(inbox);
        // Their streams' senders call back into this mailbox when they are dropped.
        drop(unread);
    }

    /// Waits until something arrives or a shutdown other than `known` is asked for, at most for `timeout`.
    pub(crate) fn wait(&self, known: Option<Shutdown>, timeout: Option<Duration>) {
        let mut inbox = self.inbox.lock();
        if !inbox.commands.is_empty() || inbox.shutdown != known {
            return;
        }
        match timeout {
            Some(timeout) => {
                self.arrived.wait_for(&mut inbox, timeout);
            }
            None => self.arrived.wait(&mut inbox),
        }
    }
}
