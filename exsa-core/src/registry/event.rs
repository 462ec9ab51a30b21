//! Events of a registry, and subscriptions to them.

use super::state::{LoadingState, ModelState, ReloadOrder};
use futures_core::Stream;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Maximum unread events of a subscription; beyond that, the oldest are dropped.
const EVENTS_MAX: usize = 1024;

/// A change in a registry.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// A model was added.
    Added {
        /// Name of the model.
        model: Arc<str>,
    },
    /// A model was removed.
    Removed {
        /// Name of the model.
        model: Arc<str>,
    },
    /// The state of a model changed.
    State {
        /// Name of the model.
        model: Arc<str>,
        /// The new state.
        state: ModelState,
    },
    /// A load, or the load of a reload, made progress.
    Progress {
        /// Name of the model.
        model: Arc<str>,
        /// The progress.
        progress: LoadingState,
    },
    /// The order of a reload was decided.
    Reload {
        /// Name of the model.
        model: Arc<str>,
        /// The order.
        order: ReloadOrder,
    },
    /// A reload that kept the model ready has ended.
    Reloaded {
        /// Name of the model.
        model: Arc<str>,
        /// The error because of which the old instance still serves; `None` if the new instance serves.
        error: Option<String>,
    },
    /// The active model changed; it may be none.
    Active {
        /// Name of the model.
        model: Option<Arc<str>>,
    },
    /// The subscriber was too slow: this many older events were dropped.
    Missed(u64),
}

#[derive(Default)]
struct State {
    events: VecDeque<RegistryEvent>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Queue {
    /// Adds an event; never waits.
    fn push(&self, event: &RegistryEvent) {
        let mut state = self.state.lock();
        let progress_of = |event: &RegistryEvent| match event {
            RegistryEvent::Progress { model, .. } => Some(model.clone()),
            _ => None,
        };
        let model = progress_of(event);
        let replaces = |last: &RegistryEvent| model.is_some() && progress_of(last) == model;
        if state.events.back().is_some_and(replaces) {
            state.events.pop_back();
        }
        if state.events.len() == EVENTS_MAX {
            state.events.pop_front();
            state.missed += 1;
        }
        state.events.push_back(event.clone());
        self.wake(state);
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.wake(state);
    }

    fn wake(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<RegistryEvent> {
        match std::mem::take(&mut self.missed) {
            0 => self.events.pop_front(),
            missed => Some(RegistryEvent::Missed(missed)),
        }
    }
}

/// The subscriptions of a registry.
#[derive(Default)]
pub(super) struct Observers(Mutex<(Vec<Weak<Queue>>, bool)>);

impl Observers {
    pub(super) fn subscribe(&self) -> Subscription {
        let queue = Arc::<Queue>::default();
        let mut observers = self.0.lock();
        if observers.1 {
            queue.close();
        } else {
            observers.0.push(Arc::downgrade(&queue));
        }
        Subscription { queue }
    }

    pub(super) fn send(&self, event: &RegistryEvent) {
        self.each(|queue| queue.push(event));
    }

    pub(super) fn close(&self) {
        self.0.lock().1 = true;
        self.each(Queue::close);
    }

    /// Calls `visit` with each queue outside the lock, since a waker may subscribe.
    fn each(&self, visit: impl Fn(&Queue)) {
        let mut queues = Vec::new();
        self.0.lock().0.retain(|queue| queue.upgrade().map(|queue| queues.push(queue)).is_some());
        queues.iter().for_each(|queue| visit(queue));
    }
}

/// The events of a registry after [`Registry::subscribe`](super::Registry::subscribe), as a blocking
/// [`Iterator`] and as a [`Stream`] for asynchronous programs. It ends when the registry is shut down.
///
/// A slow subscriber does not delay the registry: progress events of a model are merged, and beyond 1,024
/// unread events the oldest are dropped and counted ([`RegistryEvent::Missed`]).
pub struct Subscription {
    queue: Arc<Queue>,
}

impl Subscription {
    /// The next event, if one is available.
    pub fn try_next(&mut self) -> Option<RegistryEvent> {
        self.queue.state.lock().pop()
    }

    /// Waits at most `timeout` for the next event; `None` on timeout, or after the last event.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<RegistryEvent> {
        // A time that the clock cannot represent means no timeout.
        let until = Instant::now().checked_add(timeout);
        let mut state = self.queue.state.lock();
        loop {
            let event = state.pop();
            if event.is_some() || state.closed {
                return event;
            }
            match until {
                Some(until) if self.queue.arrived.wait_until(&mut state, until).timed_out() => {
                    return state.pop();
                }
                Some(_) => {}
                None => self.queue.arrived.wait(&mut state),
            }
        }
    }
}

impl Iterator for Subscription {
    type Item = RegistryEvent;

    fn next(&mut self) -> Option<RegistryEvent> {
        self.next_timeout(Duration::MAX)
    }
}

impl Stream for Subscription {
    type Item = RegistryEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RegistryEvent>> {
        let mut state = self.queue.state.lock();
        match state.pop() {
            None if !state.closed => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
            event => Poll::Ready(event),
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.queue.state.lock();
        f.debug_struct("Subscription")
            .field("unread", &state.events.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(model: &str, done: u64) -> RegistryEvent {
        RegistryEvent::Progress {
            model: model.into(),
            progress: LoadingState { done, total: 10, remaining: None },
        }
    }

    #[test]
    fn progress_is_merged_and_overflow_is_counted() {
        let observers = Observers::default();
        let mut subscription = observers.subscribe();
        for done in 0..3 {
            observers.send(&progress("a", done));
        }
        observers.send(&progress("b", 1));
        assert_eq!(subscription.try_next(), Some(progress("a", 2)));
        assert_eq!(subscription.try_next(), Some(progress("b", 1)));
        assert_eq!(subscription.try_next(), None);
        let active = RegistryEvent::Active { model: None };
        (0..EVENTS_MAX + 5).for_each(|_| observers.send(&active));
        assert_eq!(subscription.try_next(), Some(RegistryEvent::Missed(5)));
        observers.close();
        assert_eq!(subscription.by_ref().count(), EVENTS_MAX);
        assert_eq!(observers.subscribe().next(), None);
    }

    #[test]
    fn dropped_subscriptions_are_forgotten() {
        let observers = Observers::default();
        drop(observers.subscribe());
        observers.send(&progress("a", 1));
        assert!(observers.0.lock().0.is_empty());
    }
}
