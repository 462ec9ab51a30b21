//! A running operation, to wait for or to await.

use super::error::RegistryError;
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, RegistryError>;

struct State<T> {
    outcome: Option<Outcome<T>>,
    waker: Option<Waker>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

/// A running operation on a model, such as a load. Wait for it with [`wait`](Self::wait), or await it as a
/// [`Future`] on any runtime. Dropping it does not stop the operation.
#[must_use = "the outcome of the operation is unknown unless it is waited for; `drop` it to ignore it"]
pub struct Operation<T = ()> {
    shared: Arc<Shared<T>>,
}

/// The registry's end of an [`Operation`]. Dropping it without an answer answers
/// [`RegistryError::ShuttingDown`].
pub(super) struct OperationSender<T> {
    shared: Arc<Shared<T>>,
}

pub(super) fn operation<T: Clone>() -> (OperationSender<T>, Operation<T>) {
    let shared =
        Arc::new(Shared { state: Mutex::new(State { outcome: None, waker: None }), ready: Condvar::new() });
    (OperationSender { shared: shared.clone() }, Operation { shared })
}

impl<T> OperationSender<T> {
    pub(super) fn send(self, outcome: Outcome<T>) {
        self.put(outcome);
    }

    fn put(&self, outcome: Outcome<T>) {
        let mut state = self.shared.state.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.shared.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for OperationSender<T> {
    fn drop(&mut self) {
        self.put(Err(RegistryError::ShuttingDown));
    }
}

impl<T: Clone> Operation<T> {
    /// Waits for the outcome.
    ///
    /// # Errors
    ///
    /// The reason why the operation failed.
    pub fn wait(&self) -> Result<T, RegistryError> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            self.shared.ready.wait(&mut state);
        }
    }

    /// Waits at most `timeout` for the outcome; `None` if the operation is still running.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<T, RegistryError>> {
        // A time that the clock cannot represent means no timeout.
        let Some(until) = Instant::now().checked_add(timeout) else { return Some(self.wait()) };
        let mut state = self.shared.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return Some(outcome.clone());
            }
            if self.shared.ready.wait_until(&mut state, until).timed_out() {
                return state.outcome.clone();
            }
        }
    }

    /// Whether the operation has ended.
    pub fn is_done(&self) -> bool {
        self.shared.state.lock().outcome.is_some()
    }
}

impl<T: Clone> Future for Operation<T> {
    type Output = Result<T, RegistryError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock();
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.shared.state.lock().outcome.is_some();
        f.debug_struct("Operation").field("done", &done).finish_non_exhaustive()
    }
}
