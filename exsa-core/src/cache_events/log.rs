//! Log that carries events from the engine's thread to the host's.

use super::event::CacheEvent;
use crate::engine::Mailbox;
use crate::engine::mailbox::Command;
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Unread events. The engine never waits for the reader: beyond the limit, events are dropped, and the reader
/// requests a new announcement of all blocks.
#[derive(Debug)]
pub(crate) struct CacheLog {
    state: Mutex<State>,
    arrived: Condvar,
    bytes_max: usize,
}

#[derive(Debug)]
struct State {
    events: Vec<CacheEvent>,
    bytes: usize,
    follows: Follows,
    closed: bool,
    resets: u64,
}

/// Relation of the events to the cached blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    /// The log has all changes since the last announcement.
    Yes,
    /// The limit was exceeded; nothing is recorded.
    Lost,
    /// The engine was asked to announce all blocks; nothing is recorded until then.
    Asked,
}

impl CacheLog {
    fn new(bytes_max: usize) -> Self {
        let state = State { events: Vec::new(), bytes: 0, follows: Follows::Asked, closed: false, resets: 0 };
        Self { state: Mutex::new(state), arrived: Condvar::new(), bytes_max }
    }

    /// Moves the events of a step out of `events` into the log.
    pub(crate) fn push(&self, events: &mut Vec<CacheEvent>) {
        let mut state = self.state.lock();
        if state.follows != Follows::Yes {
            return events.clear();
        }
        state.bytes += events.iter().map(CacheEvent::bytes).sum::<usize>();
        state.events.append(events);
        if state.bytes > self.bytes_max {
            (state.events, state.bytes, state.follows) = (Vec::new(), 0, Follows::Lost);
            state.resets += 1;
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Replaces the unread events by events that store all cached blocks, whose size is limited only by that
    /// of the KV cache.
    pub(crate) fn announce(&self, stored: Vec<CacheEvent>) {
        let mut state = self.state.lock();
        state.events = Vec::with_capacity(stored.len() + 1);
        state.events.push(CacheEvent::Cleared);
        state.events.extend(stored);
        (state.bytes, state.follows) = (0, Follows::Yes);
        drop(state);
        self.arrived.notify_one();
    }

    /// Marks the end: no event follows.
    fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
    }
}

/// The engine's end of a log. Dropping it, in the engine or on the way there, signals the end to the reader.
#[derive(Debug)]
pub(crate) struct LogWriter {
    log: Arc<CacheLog>,
    closes: bool,
}

impl LogWriter {
    pub(crate) fn log(&self) -> &CacheLog {
        &self.log
    }

    /// Whether the reader still exists.
    pub(crate) fn is_read(&self) -> bool {
        Arc::strong_count(&self.log) > 1
    }

    /// Takes the place of `before`, which closes its log unless that is the same.
    pub(crate) fn replace(self, before: &mut Option<Self>) {
        if let Some(before) = before {
            before.closes = !Arc::ptr_eq(&before.log, &self.log);
        }
        *before = Some(self);
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if self.closes {
            self.log.close();
        }
    }
}

/// Reads the events of an engine's prefix cache, from [`Engine::watch_cache`](crate::Engine::watch_cache) on.
///
/// The first event is [`Cleared`](CacheEvent::Cleared), followed by the currently cached blocks. This
/// announcement is repeated if the reader was too slow, so that its view becomes complete again. Dropping the
/// reader ends the recording.
pub struct CacheEvents {
    log: Arc<CacheLog>,
    mailbox: Arc<Mailbox>,
}

impl CacheEvents {
    pub(crate) fn new(mailbox: Arc<Mailbox>, bytes_max: usize) -> Self {
        let events = Self { log: Arc::new(CacheLog::new(bytes_max)), mailbox };
        events.ask();
        events
    }

    /// Asks the engine for an announcement.
    fn ask(&self) {
        // A command that the engine no longer accepts closes the log.
        let _ = self.mailbox.post(Command::WatchCache(LogWriter { log: self.log.clone(), closes: true }));
    }

    /// Requests a new announcement of all blocks; unread events are dropped.
    pub fn refresh(&self) {
        let mut state = self.log.state.lock();
        (state.events, state.bytes, state.follows) = (Vec::new(), 0, Follows::Asked);
        drop(state);
        self.ask();
    }

    /// The events since the last call. If there are none, waits at most `timeout` for the next events, and
    /// returns an empty list on timeout. `None` after the last event, when the engine has ended.
    pub fn wait(&mut self, timeout: Duration) -> Option<Vec<CacheEvent>> {
        // A time that the clock cannot represent means no timeout.
        let until = Instant::now().checked_add(timeout);
        let mut state = self.log.state.lock();
        loop {
            if !state.events.is_empty() {
                state.bytes = 0;
                return Some(std::mem::take(&mut state.events));
            }
            if state.closed {
                return None;
            }
            if state.follows == Follows::Lost {
                state.follows = Follows::Asked;
                drop(state);
                self.ask();
                state = self.log.state.lock();
                continue;
            }
            match until {
                Some(until) if self.log.arrived.wait_until(&mut state, until).timed_out() => {
                    let events = std::mem::take(&mut state.events);
                    state.bytes = 0;
                    return Some(events);
                }
                Some(_) => {}
                None => self.log.arrived.wait(&mut state),
            }
        }
    }

    /// Number of times that events were dropped because the reader was too slow.
    pub fn resets(&self) -> u64 {
        self.log.state.lock().resets
    }
}

impl fmt::Debug for CacheEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheEvents").field("resets", &self.resets()).finish_non_exhaustive()
    }
}
