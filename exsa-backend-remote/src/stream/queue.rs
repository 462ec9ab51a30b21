//! Requests waiting for a connection.

use crate::dialect::{Reader, WireRequest};
use crate::stream::control::Control;
use exsa_core::Priority;
use std::collections::VecDeque;
use std::sync::Arc;

/// A request ready to be sent.
pub(crate) struct Job {
    pub(crate) control: Arc<Control>,
    pub(crate) wire: WireRequest,
    pub(crate) reader: Box<dyn Reader>,
    /// Id of the request at the engine.
    pub(crate) id: String,
    pub(crate) priority: Priority,
}

/// Requests in flight, and waiting requests, most urgent first.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) running: usize,
    waiting: [VecDeque<Job>; Priority::COUNT],
    pub(crate) closed: bool,
}

impl Queue {
    /// Removes requests that ended while they waited.
    pub(crate) fn purge(&mut self) {
        for class in &mut self.waiting {
            class.retain(|job| !job.control.has_ended());
        }
    }

    pub(crate) fn push(&mut self, job: Job) {
        self.waiting[job.priority.index()].push_back(job);
    }

    /// Returns the next request to send.
    pub(crate) fn pop(&mut self) -> Option<Job> {
        self.purge();
        self.waiting.iter_mut().find_map(VecDeque::pop_front)
    }

    /// Waiting requests by class.
    pub(crate) fn depths(&self) -> [usize; Priority::COUNT] {
        self.waiting.each_ref().map(VecDeque::len)
    }

    /// Returns the number of requests ahead of `control`'s; `None` if it is not waiting.
    pub(crate) fn ahead(&self, control: &Control) -> Option<usize> {
        self.waiting.iter().flatten().position(|job| std::ptr::eq(&*job.control, control))
    }

    /// Removes all waiting requests.
    pub(crate) fn drain(&mut self) -> Vec<Job> {
        self.waiting.iter_mut().flat_map(|class| class.drain(..)).collect()
    }
}
