//! Requests in flight, for `/slots`.

use exsa_core::{Event, Priority, Request};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Requests in flight, in order of submission.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    next: u64,
    requests: BTreeMap<u64, Arc<Running>>,
}

/// A request in flight: metadata and counts, without content.
#[derive(Debug)]
pub(crate) struct Running {
    /// Id of the HTTP request.
    pub(crate) request: Arc<str>,
    pub(crate) model: String,
    pub(crate) priority: Priority,
    pub(crate) answers: usize,
    pub(crate) tokens_max: Option<usize>,
    pub(crate) begun: Instant,
    tokens: AtomicU64,
}

impl Running {
    /// Tokens generated so far.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}

/// Entry of a request in the table; dropping it removes the entry.
pub(crate) struct Slot {
    table: InFlight,
    number: u64,
    running: Arc<Running>,
}

impl InFlight {
    /// Adds a request to `model`.
    pub(crate) fn add(&self, id: Arc<str>, model: String, request: &Request) -> Slot {
        let running = Arc::new(Running {
            request: id,
            model,
            priority: request.priority,
            answers: request.best_of.unwrap_or(request.n),
            tokens_max: request.max_tokens,
            begun: Instant::now(),
            tokens: AtomicU64::new(0),
        });
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = table.next;
        table.next += 1;
        table.requests.insert(number, running.clone());
        Slot { table: self.clone(), number, running }
    }

    /// All requests, with their numbers.
    pub(crate) fn list(&self) -> Vec<(u64, Arc<Running>)> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.requests.iter().map(|(number, running)| (*number, running.clone())).collect()
    }
}

impl Slot {
    /// Counts the token of an event.
    pub(crate) fn observe(&self, event: &Event) {
        if let Event::Token(token) | Event::Reasoning(token) = event
            && token.id.is_some()
        {
            self.running.tokens.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.table.0.lock().unwrap_or_else(PoisonError::into_inner).requests.remove(&self.number);
    }
}
