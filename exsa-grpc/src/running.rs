//! Running requests by their ids, for `Abort`.

use exsa_core::stream::CancelHandle;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Caller, request id, number.
type Key = (Arc<str>, String, u64);

/// Running requests.
#[derive(Default)]
pub(crate) struct Running {
    requests: Mutex<BTreeMap<Key, (CancelHandle, Arc<AtomicBool>)>>,
    numbers: AtomicU64,
}

/// A running request; dropping this removes it from the list.
pub(crate) struct Ticket {
    running: Arc<Running>,
    key: Key,
    aborted: Arc<AtomicBool>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, (CancelHandle, Arc<AtomicBool>)>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request. Several requests may have the same id.
    pub(crate) fn enter(self: &Arc<Self>, sender: Arc<str>, id: String, cancel: CancelHandle) -> Ticket {
        let key = (sender, id, self.numbers.fetch_add(1, Ordering::Relaxed));
        let aborted = Arc::new(AtomicBool::new(false));
        self.lock().insert(key.clone(), (cancel, aborted.clone()));
        Ticket { running: self.clone(), key, aborted }
    }

    /// Cancels the caller's requests with this id.
    pub(crate) fn abort(&self, sender: &Arc<str>, id: &str) {
        let first = (sender.clone(), id.to_owned(), 0);
        let last = (sender.clone(), id.to_owned(), u64::MAX);
        for (cancel, aborted) in self.lock().range(first..=last).map(|(_, request)| request) {
            aborted.store(true, Ordering::Release);
            cancel.cancel();
        }
    }
}

impl Ticket {
    /// Returns whether the request was aborted by its id.
    pub(crate) fn was_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Running").field("requests", &self.lock().len()).finish()
    }
}
