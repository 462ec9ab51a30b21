//! Commands from other threads, taken by the engine between steps.

use crate::cache_events::LogWriter;
use crate::engine::embed_job::EmbedJob;
use crate::engine::request_state::Submission;
use crate::prompt_cache::ReadEnd;
use crate::schedule::queue::FairOptions;
use crate::schedule::scheduler::Mode;
use crate::speculate::Speculation;
use crate::token::RequestId;
use parking_lot::{Condvar, Mutex};
use std::sync::mpsc::Sender;
use std::time::Duration;

pub(crate) enum Command {
    Submit(Submission),
    Embed(Box<EmbedJob>),
    Cancel(RequestId),
    Resume(RequestId),
    Mode(Mode),
    Fair(FairOptions),
    Speculate(Option<Box<Speculation>>),
    Position(RequestId),
    WatchCache(LogWriter),
    PromptRead(ReadEnd),
    /// Saves all prefixes missing in the prompt store, and sends the number that the store accepted.
    SavePrompts(Sender<usize>),
}

/// Ways to shut an engine down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Shutdown {
    /// Accepted requests are completed first.
    Drain,
    /// All requests are cancelled at once.
    Abort,
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    shutdown: Option<Shutdown>,
    /// The engine has ended and reads no more commands.
    closed: bool,
}

/// The command queue of one engine.
#[derive(Default)]
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

impl Mailbox {
    /// Posts a command; returns it if the engine no longer accepts it.
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

    /// Requests a shutdown; a drain can become an abort, not the other way round.
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

    /// Closes the mailbox and drops unread commands.
    pub(crate) fn close(&self) {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        let unread = std::mem::take(&mut inbox.commands);
        drop(inbox);
        // Drop outside the lock: the commands' stream senders call into this mailbox on drop.
        drop(unread);
    }

    /// Waits for a command or a shutdown other than `known`, for at most `timeout`.
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
