//! The tokens of one request, as they come: a blocking iterator and an asynchronous stream.

use crate::finish::{FinishReason, RequestError, Usage};
use crate::token::TokenId;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What a [`TokenStream`] yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One token was generated.
    Token(Token),
    /// The request ended. Always the last event, and always there.
    Finished(Finished),
}

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// The text that became certain with it. Empty while a character is incomplete or the text may be the start
    /// of a stop string; then a later token, or [`Finished::text`], brings it.
    pub text: String,
    /// Natural logarithm of its probability under the model, where the request asked for it.
    pub logprob: Option<f32>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Text that was held back and now is certain.
    pub text: String,
    /// Why it ended.
    pub reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

/// A whole answer, as [`TokenStream::complete`] collects it.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// All text.
    pub text: String,
    /// All tokens.
    pub tokens: Vec<Token>,
    /// Why it ended; never [`FinishReason::Failed`].
    pub reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

/// What a stream tells the engine that fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamSignal {
    /// Nobody wants the rest: cancelled, or the stream was dropped.
    Cancelled,
    /// A stream that was full has room again.
    Drained,
    /// The consumer wants to know how long the request will wait: [`StreamSender::position`] answers.
    Position,
}

/// Where a request stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePosition {
    /// Requests that go before it, if nothing else arrives and all are alike.
    pub ahead: usize,
    /// How long it will wait, going by how fast the queue moved lately; `None` before it moved.
    pub estimated_wait: Option<Duration>,
}

type Notify = Arc<dyn Fn(StreamSignal) + Send + Sync>;

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    finished: bool,
    full: bool,
    waker: Option<Waker>,
    /// The answer to [`StreamSignal::Position`].
    position: Option<Option<QueuePosition>>,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
    answered: Condvar,
    capacity: usize,
    notify: Notify,
}

/// Makes the two ends of a stream: for implementations of [`Generator`](crate::generator::Generator).
///
/// `capacity` is the number of events that may wait unread before [`StreamSender::token`] says that it is full.
/// `notify` is called from the consumer's thread and must not block.
pub fn channel(
    capacity: usize,
    notify: impl Fn(StreamSignal) + Send + Sync + 'static,
) -> (StreamSender, TokenStream) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        ready: Condvar::new(),
        answered: Condvar::new(),
        capacity: capacity.max(1),
        notify: Arc::new(notify),
    });
    (StreamSender { shared: shared.clone() }, TokenStream { shared })
}

/// The engine's end of a stream. It never waits. Dropped before [`finish`](Self::finish), it ends the stream
/// with [`RequestError::EngineStopped`].
pub struct StreamSender {
    shared: Arc<Shared>,
}

impl StreamSender {
    /// Sends a token. `false` means that the stream is now full: the token is kept, but no more should come
    /// before [`StreamSignal::Drained`].
    pub fn token(&self, token: Token) -> bool {
        let mut state = self.shared.state.lock();
        if !state.finished {
            state.events.push_back(Event::Token(token));
            state.full = state.events.len() >= self.shared.capacity;
        }
        let full = state.full;
        self.wake(state);
        !full
    }

    /// Answers [`StreamSignal::Position`]; `None` where the request no longer waits.
    pub fn position(&self, position: Option<QueuePosition>) {
        self.shared.state.lock().position = Some(position);
        self.shared.answered.notify_all();
    }

    /// Ends the stream.
    pub fn finish(self, finished: Finished) {
        self.end(finished);
    }

    fn end(&self, finished: Finished) {
        let mut state = self.shared.state.lock();
        if state.finished {
            return;
        }
        state.finished = true;
        state.events.push_back(Event::Finished(finished));
        self.shared.answered.notify_all();
        self.wake(state);
    }

    fn wake(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.shared.ready.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        self.end(Finished {
            text: String::new(),
            reason: FinishReason::Failed(RequestError::EngineStopped),
            usage: Usage::default(),
        });
    }
}

/// The events of one request.
///
/// As an [`Iterator`] it blocks until the next event; as a [`futures_core::Stream`] it works on any runtime. Both
/// end after [`Event::Finished`]. Dropping it cancels the request.
pub struct TokenStream {
    shared: Arc<Shared>,
}

impl TokenStream {
    /// A handle that cancels the request from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { notify: self.shared.notify.clone() }
    }

    /// Ends the request; the events already here, and [`Event::Finished`], can still be read.
    pub fn cancel(&self) {
        (self.shared.notify)(StreamSignal::Cancelled);
    }

    /// The next event if one is here; `None` if not, or after the last.
    pub fn try_next(&mut self) -> Option<Event> {
        let state = self.shared.state.lock();
        self.pop(state)
    }

    /// Waits for the next event for at most `timeout`; `None` if none came, or after the last.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let until = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        while state.events.is_empty() && !state.finished {
            if self.shared.ready.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        self.pop(state)
    }

    /// Asks where the request stands in the queue, and waits for the answer for at most `timeout`: the engine gives it between two
    /// steps. `None` where the request no longer waits, or no answer came.
    pub fn queue_position(&self, timeout: Duration) -> Option<QueuePosition> {
        self.shared.state.lock().position = None;
        (self.shared.notify)(StreamSignal::Position);
        let until = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        while state.position.is_none() && !state.finished {
            if self.shared.answered.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.position.flatten()
    }

    /// Reads to the end: the whole answer, or the error that the request failed with.
    pub fn complete(self) -> Result<Completion, RequestError> {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        for event in self {
            match event {
                Event::Token(token) => {
                    text.push_str(&token.text);
                    tokens.push(token);
                }
                Event::Finished(Finished { reason: FinishReason::Failed(error), .. }) => return Err(error),
                Event::Finished(Finished { text: rest, reason, usage }) => {
                    text.push_str(&rest);
                    return Ok(Completion { text, tokens, reason, usage });
                }
            }
        }
        Err(RequestError::EngineStopped)
    }

    fn pop(&self, mut state: parking_lot::MutexGuard<'_, State>) -> Option<Event> {
        let event = state.events.pop_front();
        let drained = state.full && state.events.len() <= self.shared.capacity / 2;
        if drained {
            state.full = false;
        }
        drop(state);
        if drained {
            (self.shared.notify)(StreamSignal::Drained);
        }
        event
    }
}

impl Iterator for TokenStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut state = self.shared.state.lock();
        while state.events.is_empty() && !state.finished {
            self.shared.ready.wait(&mut state);
        }
        self.pop(state)
    }
}

impl futures_core::Stream for TokenStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.shared.state.lock();
        if state.events.is_empty() && !state.finished {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.pop(state))
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let wanted = !state.finished;
        state.events.clear();
        drop(state);
        if wanted {
            (self.shared.notify)(StreamSignal::Cancelled);
        }
    }
}

/// Cancels a request from any thread.
#[derive(Clone)]
pub struct CancelHandle {
    notify: Notify,
}

impl CancelHandle {
    /// Ends the request; no effect once it has ended.
    pub fn cancel(&self) {
        (self.notify)(StreamSignal::Cancelled);
    }
}
