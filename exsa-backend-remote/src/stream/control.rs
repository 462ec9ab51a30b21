//! Request state shared by its consumer, its timers and its thread.

use crate::stream::answer::Answer;
use exsa_core::FinishReason;
use exsa_core::stream::QueuePosition;
use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};
use ureq::Agent;

/// A request until its end.
///
/// The consumer, a deadline and the network can each end the stream without waiting for the others; the first
/// one wins.
pub(crate) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// `None` while the thread processes it, and after the end.
    answer: Option<Box<Answer>>,
    ended: Option<FinishReason>,
    /// The connection in use.
    agent: Option<Agent>,
    /// Whether the consumer's stream is full.
    full: bool,
    /// Whether bytes are expected; not before the response head, and not while the stream is full.
    reading: bool,
    last_byte: Instant,
}

impl Control {
    pub(crate) fn new(answer: Answer) -> Self {
        let state = State {
            answer: Some(Box::new(answer)),
            ended: None,
            agent: None,
            full: false,
            reading: false,
            last_byte: Instant::now(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Ends the request and closes its connection; no effect if it has ended.
    pub(crate) fn end(&self, reason: FinishReason) {
        if self.end_kept(reason) {
            self.disconnect();
        }
    }

    /// Like [`end`](Self::end), but keeps the connection. Returns whether the request had not ended.
    pub(crate) fn end_kept(&self, reason: FinishReason) -> bool {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return false;
        }
        state.ended = Some(reason.clone());
        let answer = state.answer.take();
        drop(state);
        self.changed.notify_all();
        if let Some(answer) = answer {
            answer.finish(reason);
        }
        true
    }

    /// Ends the request unless a token was generated.
    pub(crate) fn end_before_first_token(&self) {
        let state = self.state.lock();
        // While the thread processes the answer, there is a token.
        if state.answer.as_ref().is_some_and(|answer| answer.waits_for_first()) {
            drop(state);
            self.end(FinishReason::FirstTokenTimeout);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// Processes the answer. `None` if the request has ended.
    ///
    /// The lock is not held meanwhile, since events wake consumers, whose code may call this again.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Answer) -> T) -> Option<T> {
        let mut answer = self.state.lock().answer.take()?;
        let result = work(&mut answer);
        let mut state = self.state.lock();
        match state.ended.clone() {
            None => {
                state.answer = Some(answer);
                Some(result)
            }
            Some(reason) => {
                drop(state);
                answer.finish(reason);
                None
            }
        }
    }

    /// Sets the connection to close at the end of the request. Returns `false` if the request has ended.
    pub(crate) fn attach(&self, agent: &Agent) -> bool {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return false;
        }
        state.agent = Some(agent.clone());
        true
    }

    /// Releases the connection.
    pub(crate) fn detach(&self) {
        let mut state = self.state.lock();
        state.agent = None;
        state.reading = false;
    }

    /// Closes the connection, if there is one.
    pub(crate) fn disconnect(&self) {
        let agent = self.state.lock().agent.take();
        if let Some(agent) = agent {
            agent.shutdown();
        }
    }

    /// Marks the stream as full, before the event that may fill it.
    pub(crate) fn mark_full(&self) {
        self.state.lock().full = true;
    }

    /// Called when the consumer has drained the stream.
    pub(crate) fn drained(&self) {
        self.state.lock().full = false;
        self.changed.notify_all();
    }

    /// Waits until the stream has room. Returns `false` if the request has ended.
    pub(crate) fn wait_for_room(&self) -> bool {
        let mut state = self.state.lock();
        state.reading = false;
        while state.full && state.ended.is_none() {
            self.changed.wait(&mut state);
        }
        state.reading = true;
        state.last_byte = Instant::now();
        state.ended.is_none()
    }

    /// Waits for `delay`. Returns `false` if the request has ended.
    pub(crate) fn sleep(&self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        let mut state = self.state.lock();
        while state.ended.is_none() {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.ended.is_none()
    }

    /// Restarts the idle time: bytes arrived, or are expected from now on.
    pub(crate) fn touch(&self) {
        let mut state = self.state.lock();
        state.reading = true;
        state.last_byte = Instant::now();
    }

    /// Returns the time since the last byte, if bytes are expected. `None` after the end.
    pub(crate) fn idle(&self) -> Option<Duration> {
        let state = self.state.lock();
        match (&state.ended, state.reading) {
            (Some(_), _) => None,
            (None, false) => Some(Duration::ZERO),
            (None, true) => Some(state.last_byte.elapsed()),
        }
    }

    /// Answers the consumer's query of its queue position.
    pub(crate) fn position(&self, position: Option<QueuePosition>) {
        if let Some(answer) = &self.state.lock().answer {
            answer.sender.position(position);
        }
    }
}
