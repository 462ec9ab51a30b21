//! Numbered messages: the replay buffer, and the queues of subscribers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Maximum unread messages of a subscriber; further ones are dropped for it, which the sequence numbers
/// reveal.
const QUEUE_MAX: usize = 1024;

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) topic: Arc<str>,
    pub(super) number: u64,
    pub(super) payload: Arc<[u8]>,
}

/// Numbers the messages of all models and distributes them.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    steps_max: usize,
    bytes_max: usize,
    /// Counts requests for a full announcement of all blocks.
    refreshes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    buffer: VecDeque<Step>,
    bytes: usize,
    subscribers: Vec<mpsc::Sender<Step>>,
}

impl Hub {
    pub(super) fn new(steps_max: usize, bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { state: Mutex::default(), steps_max, bytes_max, refreshes: AtomicU64::new(0) }
    }

    /// Publishes a message without waiting.
    pub(super) fn publish(&self, topic: &Arc<str>, payload: Vec<u8>) {
        let mut state = self.lock();
        let step = Step { topic: topic.clone(), number: state.next, payload: payload.into() };
        state.next += 1;
        state.subscribers.retain(|queue| match queue.try_send(step.clone()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        state.bytes += step.payload.len();
        state.buffer.push_back(step);
        while state.buffer.len() > self.steps_max || state.bytes > self.bytes_max {
            let Some(oldest) = state.buffer.pop_front() else { break };
            state.bytes -= oldest.payload.len();
        }
    }

    /// Subscribes to messages from now on.
    pub(super) fn subscribe(&self) -> mpsc::Receiver<Step> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        self.lock().subscribers.push(sender);
        receiver
    }

    /// Returns the first buffered message with at least this number.
    pub(super) fn repeat(&self, number: u64) -> Option<Step> {
        let state = self.lock();
        let first = state.buffer.front()?.number;
        let index = usize::try_from(number.saturating_sub(first)).ok()?;
        state.buffer.get(index).cloned()
    }

    /// Requests a full announcement of all blocks, for a new subscriber.
    pub(super) fn refresh(&self) {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refreshes(&self) -> u64 {
        self.refreshes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
