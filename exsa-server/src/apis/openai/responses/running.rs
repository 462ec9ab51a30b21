//! Responses that are being generated, so that their callers can cancel them.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The responses that are being generated, by id.
#[derive(Clone, Default)]
pub(crate) struct RunningResponses(Arc<Mutex<HashMap<String, Entry>>>);

struct Entry {
    caller: String,
    /// The response as it began.
    response: Value,
    cancelled: Arc<AtomicBool>,
    cancel: Box<dyn Fn() + Send>,
}

/// The place of a response in the list; dropping it takes the response off.
pub(super) struct Running {
    list: RunningResponses,
    id: String,
    cancelled: Arc<AtomicBool>,
}

impl RunningResponses {
    /// Lists a response. `cancel` ends its request.
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

    /// A response of the caller as it began, while it is being generated.
    pub(super) fn get(&self, caller: &str, id: &str) -> Option<Value> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.get(id).filter(|entry| entry.caller == caller).map(|entry| entry.response.clone())
    }

    /// Responses of the caller that are being generated.
    pub(super) fn count(&self, caller: &str) -> usize {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.values().filter(|entry| entry.caller == caller).count()
    }

    /// Cancels a response of the caller. Returns the response, or `None` if there is none that is being
    /// generated.
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
    /// Whether the caller cancelled the response.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.list.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
