//! The pending output of an embedding or rerank request, to wait for or to await.

use super::output::EmbedError;
use crate::finish::RequestError;
use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

struct State<T> {
    output: Option<Result<T, EmbedError>>,
    /// Whether the output was sent; it may already have been taken.
    sent: bool,
    waker: Option<Waker>,
    /// Values dropped at the end of the request: [`Pending::hold`].
    held: Vec<Box<dyn Any + Send>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    cancel: Box<dyn Fn() + Send + Sync>,
}

/// Creates the two ends of a pending output, for implementations of [`Generator`](crate::Generator).
///
/// If the [`Pending`] is dropped before its output was sent, `cancel` is called on the thread that drops it.
/// It must not block.
pub fn pending<T>(cancel: impl Fn() + Send + Sync + 'static) -> (PendingSender<T>, Pending<T>) {
    let state = State { output: None, sent: false, waker: None, held: Vec::new() };
    let shared =
        Arc::new(Shared { state: Mutex::new(state), ready: Condvar::new(), cancel: Box::new(cancel) });
    (PendingSender { shared: shared.clone() }, Pending { shared })
}

/// The sending end. Dropping it before [`send`](Self::send) sends [`RequestError::EngineStopped`].
#[must_use = "an output whose sender is dropped fails"]
pub struct PendingSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> PendingSender<T> {
    /// Sends the output.
    pub fn send(self, output: Result<T, EmbedError>) {
        self.put(output);
    }

    fn put(&self, output: Result<T, EmbedError>) {
        // The values are dropped before the output can be read, and outside the lock.
        let held = std::mem::take(&mut self.shared.state.lock().held);
        drop(held);
        let mut state = self.shared.state.lock();
        if state.sent {
            return;
        }
        state.sent = true;
        state.output = Some(output);
        let (waker, held) = (state.waker.take(), std::mem::take(&mut state.held));
        drop(state);
        drop(held);
        self.shared.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for PendingSender<T> {
    fn drop(&mut self) {
        self.put(Err(RequestError::EngineStopped.into()));
    }
}

/// A pending output: wait for it with [`wait`](Self::wait), or await it as a [`Future`] on any runtime.
/// Dropping it cancels the request.
#[must_use = "dropping it cancels the request"]
pub struct Pending<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Pending<T> {
    /// Waits for the output.
    ///
    /// # Errors
    ///
    /// The reason why there is no output.
    pub fn wait(self) -> Result<T, EmbedError> {
        let mut state = self.shared.state.lock();
        while !state.sent {
            self.shared.ready.wait(&mut state);
        }
        state.output.take().unwrap_or(Err(RequestError::EngineStopped.into()))
    }

    /// Waits at most `timeout` for the output; returns `self` on timeout.
    ///
    /// # Errors
    ///
    /// `self`, to wait again later.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<T, EmbedError>, Self> {
        // A time that the clock cannot represent means no timeout.
        let Some(until) = Instant::now().checked_add(timeout) else { return Ok(self.wait()) };
        let mut state = self.shared.state.lock();
        while !state.sent {
            if self.shared.ready.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let sent = state.sent;
        drop(state);
        if sent { Ok(self.wait()) } else { Err(self) }
    }

    /// Keeps `value` until the request has ended, then drops it on the thread that ends the request.
    pub fn hold(&self, value: impl Any + Send) {
        let mut state = self.shared.state.lock();
        if state.sent {
            drop(state);
            drop(value);
        } else {
            state.held.push(Box::new(value));
        }
    }

    /// Whether the output is available.
    pub fn is_ready(&self) -> bool {
        self.shared.state.lock().sent
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, EmbedError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock();
        if !state.sent {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(state.output.take().unwrap_or(Err(RequestError::EngineStopped.into())))
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let sent = self.shared.state.lock().sent;
        if !sent {
            (self.shared.cancel)();
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for PendingSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingSender").finish_non_exhaustive()
    }
}
