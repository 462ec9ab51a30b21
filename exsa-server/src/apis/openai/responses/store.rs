//! Stored responses: in memory, private to their caller, bounded in number and bytes, and expiring.

use crate::config::units;
use crate::http::error::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limits of stored responses. A new response replaces the oldest ones of its caller, or of the caller with
/// the most bytes.
///
/// ```
/// use exsa_server::StoredResponses;
/// use std::time::Duration;
///
/// let limits = StoredResponses::default().per_caller(64, 4 << 20).time_to_live(Duration::from_secs(3600));
/// # let _ = limits;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StoredResponses {
    /// Maximum responses per caller; 256 by default. With 0 nothing is stored.
    pub count_per_caller: usize,
    /// Maximum bytes per caller; 16 MiB by default.
    #[serde(with = "units::size")]
    pub bytes_per_caller: usize,
    /// Maximum responses in total; 16,384 by default.
    pub count: usize,
    /// Maximum bytes in total; 256 MiB by default.
    #[serde(with = "units::size")]
    pub bytes: usize,
    /// Time after which a response is deleted; one day by default.
    #[serde(with = "units::duration")]
    pub time_to_live: Duration,
}

impl Default for StoredResponses {
    fn default() -> Self {
        Self {
            count_per_caller: 256,
            bytes_per_caller: 16 << 20,
            count: 16_384,
            bytes: 256 << 20,
            time_to_live: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl StoredResponses {
    /// Sets the maximum responses and bytes per caller.
    #[must_use]
    pub fn per_caller(mut self, count: usize, bytes: usize) -> Self {
        self.count_per_caller = count;
        self.bytes_per_caller = bytes;
        self
    }

    /// Sets the maximum responses and bytes in total.
    #[must_use]
    pub fn in_all(mut self, count: usize, bytes: usize) -> Self {
        self.count = count;
        self.bytes = bytes;
        self
    }

    /// Sets the time after which a response is deleted.
    #[must_use]
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = time;
        self
    }
}

/// Approximate overhead of an entry in bytes: ids, maps, queues.
const ENTRY_BYTES: usize = 512;

/// A response with its input items, as JSON texts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The response.
    pub(crate) response: String,
    /// The list of input items, including those of previous responses and their output.
    pub(crate) input: String,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.response.len() + self.input.len() + ENTRY_BYTES
    }

    /// The response as a value.
    pub(super) fn response(&self) -> Result<Value, ApiError> {
        serde_json::from_str(&self.response).map_err(unreadable)
    }

    /// The input items as values.
    pub(super) fn items(&self) -> Result<Vec<Value>, ApiError> {
        serde_json::from_str(&self.input).map_err(unreadable)
    }
}

fn unreadable(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("a stored response cannot be read: {error}"))
}

/// Stores one response when it has ended.
pub(super) struct Keeper {
    store: Arc<ResponseStore>,
    caller: String,
    input: String,
}

impl Keeper {
    /// Creates a keeper for the response to `items`.
    pub(super) fn new(store: Arc<ResponseStore>, caller: String, items: &[Value]) -> Self {
        Self { store, caller, input: json_text(items) }
    }

    /// Stores the response.
    pub(super) fn keep(self, id: &str, response: &Value) {
        let stored = Stored { response: json_text(response), input: self.input };
        self.store.insert(&self.caller, id, stored, Instant::now());
    }
}

fn json_text(value: &(impl serde::Serialize + ?Sized)) -> String {
    // JSON values can always be serialized.
    serde_json::to_string(value).unwrap_or_default()
}

/// The responses of all callers.
pub(crate) struct ResponseStore {
    limits: StoredResponses,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<String, Entry>,
    /// Ids of each caller, oldest first.
    callers: HashMap<String, Owned>,
    /// Ids in order of expiry, including those of deleted responses.
    expiring: VecDeque<(Instant, String)>,
    bytes: usize,
}

struct Entry {
    caller: String,
    stored: Arc<Stored>,
}

#[derive(Default)]
struct Owned {
    ids: VecDeque<String>,
    bytes: usize,
}

impl ResponseStore {
    pub(crate) fn new(limits: StoredResponses) -> Self {
        Self { limits, entries: Mutex::default() }
    }

    /// Returns whether responses are stored at all.
    pub(crate) fn is_enabled(&self) -> bool {
        self.limits.count_per_caller > 0 && self.limits.count > 0
    }

    /// Stores a response. A response that exceeds the limits is not stored.
    pub(crate) fn insert(&self, caller: &str, id: &str, stored: Stored, now: Instant) {
        let bytes = stored.bytes();
        if !self.is_enabled() || bytes > self.limits.bytes_per_caller.min(self.limits.bytes) {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.expire(now);
        entries.remove(id);
        while entries.callers.get(caller).is_some_and(|owned| {
            owned.ids.len() >= self.limits.count_per_caller
                || owned.bytes + bytes > self.limits.bytes_per_caller
        }) {
            entries.remove_oldest(caller);
        }
        while entries.by_id.len() >= self.limits.count || entries.bytes + bytes > self.limits.bytes {
            let largest = entries.callers.iter().max_by_key(|(_, owned)| owned.bytes);
            let Some(largest) = largest.map(|(caller, _)| caller.clone()) else { break };
            entries.remove_oldest(&largest);
        }
        entries.bytes += bytes;
        let owned = entries.callers.entry(caller.to_owned()).or_default();
        owned.ids.push_back(id.to_owned());
        owned.bytes += bytes;
        // A time beyond the clock's range means never.
        if let Some(expiry) = now.checked_add(self.limits.time_to_live) {
            entries.expiring.push_back((expiry, id.to_owned()));
        }
        let entry = Entry { caller: caller.to_owned(), stored: Arc::new(stored) };
        entries.by_id.insert(id.to_owned(), entry);
    }

    /// Returns a response of the caller; `None` also for those of others.
    pub(crate) fn get(&self, caller: &str, id: &str, now: Instant) -> Option<Arc<Stored>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.expire(now);
        entries.by_id.get(id).filter(|entry| entry.caller == caller).map(|entry| entry.stored.clone())
    }

    /// Deletes a response of the caller. Returns whether there was one.
    pub(crate) fn delete(&self, caller: &str, id: &str, now: Instant) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.expire(now);
        entries.by_id.get(id).is_some_and(|entry| entry.caller == caller) && entries.remove(id)
    }
}

impl Entries {
    fn expire(&mut self, now: Instant) {
        while self.expiring.front().is_some_and(|(expiry, _)| *expiry <= now) {
            if let Some((_, id)) = self.expiring.pop_front() {
                self.remove(&id);
            }
        }
        // Ids of responses that were deleted long before their expiry must not accumulate.
        if self.expiring.len() > 2 * self.by_id.len() + 64 {
            let by_id = &self.by_id;
            self.expiring.retain(|(_, id)| by_id.contains_key(id));
        }
    }

    fn remove_oldest(&mut self, caller: &str) {
        let oldest = self.callers.get(caller).and_then(|owned| owned.ids.front().cloned());
        match oldest {
            Some(id) => drop(self.remove(&id)),
            None => drop(self.callers.remove(caller)),
        }
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(Entry { caller, stored }) = self.by_id.remove(id) else { return false };
        let bytes = stored.bytes();
        self.bytes -= bytes;
        if let Some(owned) = self.callers.get_mut(&caller) {
            owned.bytes -= bytes;
            owned.ids.retain(|other| other != id);
            if owned.ids.is_empty() {
                self.callers.remove(&caller);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: usize) -> Stored {
        Stored { response: "x".repeat(bytes), input: String::new() }
    }

    #[test]
    fn responses_belong_to_their_caller() {
        let (store, now) = (ResponseStore::new(StoredResponses::default()), Instant::now());
        store.insert("a", "1", stored(1), now);
        assert!(store.get("a", "1", now).is_some());
        assert!(store.get("b", "1", now).is_none());
        assert!(!store.delete("b", "1", now));
        assert!(store.delete("a", "1", now));
        assert!(store.get("a", "1", now).is_none());
    }

    #[test]
    fn the_oldest_give_way_within_a_caller() {
        let limits = StoredResponses::default().per_caller(2, 3 * ENTRY_BYTES);
        let (store, now) = (ResponseStore::new(limits), Instant::now());
        for id in ["1", "2", "3"] {
            store.insert("a", id, stored(1), now);
        }
        assert!(store.get("a", "1", now).is_none() && store.get("a", "2", now).is_some());
        store.insert("a", "4", stored(2 * ENTRY_BYTES), now);
        assert!(store.get("a", "3", now).is_none() && store.get("a", "4", now).is_some());
        store.insert("a", "5", stored(3 * ENTRY_BYTES), now);
        assert!(store.get("a", "5", now).is_none(), "larger than the limit");
    }

    #[test]
    fn the_largest_caller_gives_way_when_all_is_full() {
        let limits = StoredResponses::default().in_all(3, usize::MAX);
        let (store, now) = (ResponseStore::new(limits), Instant::now());
        store.insert("small", "1", stored(1), now);
        store.insert("large", "2", stored(100), now);
        store.insert("large", "3", stored(100), now);
        store.insert("new", "4", stored(1), now);
        assert!(store.get("small", "1", now).is_some() && store.get("large", "2", now).is_none());
        let entries = store.entries.lock().unwrap();
        let sum: usize = entries.callers.values().map(|owned| owned.bytes).sum();
        assert_eq!((entries.by_id.len(), sum), (3, entries.bytes));
    }

    #[test]
    fn responses_expire_and_deleted_ones_leave_nothing() {
        let limits = StoredResponses::default().time_to_live(Duration::from_secs(10));
        let (store, now) = (ResponseStore::new(limits), Instant::now());
        for id in 0..1000 {
            store.insert("a", &id.to_string(), stored(1), now);
            store.delete("a", &id.to_string(), now);
        }
        assert!(store.entries.lock().unwrap().expiring.len() < 100);
        store.insert("a", "x", stored(1), now);
        assert!(store.get("a", "x", now + Duration::from_secs(9)).is_some());
        assert!(store.get("a", "x", now + Duration::from_secs(10)).is_none());
        let entries = store.entries.lock().unwrap();
        assert_eq!((entries.bytes, entries.callers.len()), (0, 0));
    }
}
