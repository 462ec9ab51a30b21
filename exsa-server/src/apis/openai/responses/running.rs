//! Responses in progress, which their callers can cancel.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Responses in progress, by id.
#[derive(Clone, Default)]
pub(crate) struct RunningResponses(Arc<Mutex<HashMap<String, Entry>>>);

struct Entry {
    caller: String,
    /// The initial state of the response.
    response: Value,
    cancelled: Arc<AtomicBool>,
    cancel: Box<dyn Fn() + Send>,
}

/// Entry of a response in the list; dropping it removes the entry.
pub(super) struct Running {
    list: RunningResponses,
    id: String,
    cancelled: Arc<AtomicBool>,
}

impl RunningResponses {
    /// Adds a response. `cancel` ends its request.
    pub(super) fn add(
        &self,
        id: String,
        caller: String,
        response: Value,
        cancel: impl Fn() + Send + 'static,
    ) -> Running {
        let cancelled = Arc::new(AtomicBool::new(false));
        let entry = Entry { caller, response, cancelled: cancelled.clone(), cancel: Box::new(cancel) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), entry);
        Running { list: self.clone(), id, cancelled }
    }

    /// Returns the initial state of a caller's response in progress.
    pub(super) fn get(&self, caller: &str, id: &str) -> Option<Value> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.get(id).filter(|entry| entry.caller == caller).map(|entry| entry.response.clone())
    }

    /// Number of the caller's responses in progress.
    pub(super) fn count(&self, caller: &str) -> usize {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.values().filter(|entry| entry.caller == caller).count()
    }

    /// Cancels a response of the caller. Returns the response, or `None` if it is not in progress.
    pub(super) fn cancel(&self, caller: &str, id: &str) -> Option<Value> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = list.get(id).filter(|entry| entry.caller == caller)?;
        entry.cancelled.store(true, Ordering::Release);
        (entry.cancel)();
        let mut response = entry.response.clone();
        response["status"] = "cancelled".into();
        Some(response)
    }
}

impl Running {
    /// Returns whether the caller cancelled the response.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.list.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
