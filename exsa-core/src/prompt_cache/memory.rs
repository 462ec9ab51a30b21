//! A prompt store in memory.

use super::{EntryId, PromptKey, PromptStore, ReadReply, SavedPrompt, StoredPrefix};
use crate::schedule::prefix::common_len;
use parking_lot::Mutex;
use std::fmt;
use std::time::Duration;

/// A prompt store in the memory of the process. It extends the KV cache by prefixes that do not fit there,
/// and holds the checkpoints of sessions that cannot truncate (recurrent models).
///
/// ```
/// use exsa_core::prompt_cache::PromptMemory;
/// use exsa_core::{EngineOptions, PromptCacheOptions};
/// use std::sync::Arc;
///
/// let store = Arc::new(PromptMemory::new(1 << 30));
/// let options = EngineOptions::default().prompt_cache(PromptCacheOptions::new(store));
/// ```
pub struct PromptMemory {
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    bytes: u64,
    /// Number of entries written so far.
    written: u128,
    /// Number of reads and writes so far.
    uses: u64,
}

struct Entry {
    id: EntryId,
    prompt: SavedPrompt,
    /// Value of `uses` at its last read or write.
    used: u64,
}

impl PromptMemory {
    /// A store of at most `bytes_max` bytes; beyond that, the least recently used entries are evicted.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

impl PromptStore for PromptMemory {
    fn find(&self, key: &PromptKey<'_>, whole: bool) -> Option<StoredPrefix> {
        let state = self.state.lock();
        let shared = |entry: &Entry| {
            let tokens = common_len(&entry.prompt.tokens, key.tokens);
            let fits = is_of(&entry.prompt, key) && (!whole || tokens == entry.prompt.tokens.len());
            if fits { tokens } else { 0 }
        };
        let (tokens, entry) =
            state.entries.iter().map(|entry| (shared(entry), entry)).max_by_key(|(n, _)| *n)?;
        (tokens > 0).then(|| StoredPrefix::new(entry.id, tokens, entry.prompt.record.len() as u64))
    }

    fn read(&self, entry: EntryId, reply: ReadReply) {
        let record = self.state.lock().read(entry);
        match record {
            Some(record) => reply.done(record, Duration::ZERO),
            None => reply.failed("the entry no longer exists"),
        }
    }

    fn buffer(&self, bytes: u64, _wait: Duration) -> Option<Vec<u8>> {
        (bytes <= self.bytes_max).then(Vec::new)
    }

    fn write(&self, prompt: SavedPrompt) {
        if bytes_of(&prompt) > self.bytes_max {
            return;
        }
        let mut state = self.state.lock();
        state.retain(|entry| !replaces(&prompt, &entry.prompt));
        state.insert(prompt);
        while state.bytes > self.bytes_max
            && let Some(oldest) = state.entries.iter().min_by_key(|entry| entry.used).map(|entry| entry.id)
        {
            state.retain(|entry| entry.id != oldest);
        }
    }

    fn refused(&self, entry: EntryId, _reason: &str) {
        self.state.lock().retain(|other| other.id != entry);
    }
}

impl State {
    fn read(&mut self, id: EntryId) -> Option<Vec<u8>> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id)?;
        self.uses += 1;
        entry.used = self.uses;
        Some(entry.prompt.record.clone())
    }

    fn insert(&mut self, mut prompt: SavedPrompt) {
        prompt.record.shrink_to_fit();
        (self.written, self.uses) = (self.written + 1, self.uses + 1);
        self.bytes += bytes_of(&prompt);
        self.entries.push(Entry { id: EntryId(self.written.to_le_bytes()), prompt, used: self.uses });
    }

    fn retain(&mut self, stays: impl Fn(&Entry) -> bool) {
        self.entries.retain(stays);
        self.bytes = self.entries.iter().map(|entry| bytes_of(&entry.prompt)).sum();
    }
}

fn bytes_of(prompt: &SavedPrompt) -> u64 {
    (prompt.record.len() + size_of_val(prompt.tokens.as_slice()) + size_of::<Entry>()) as u64
}

/// Whether the model, adapter and salt of an entry are those of a key.
fn is_of(prompt: &SavedPrompt, key: &PromptKey<'_>) -> bool {
    let own = prompt.key();
    (own.fingerprint, own.adapter, own.salt) == (key.fingerprint, key.adapter, key.salt)
}

/// Whether `new` serves all requests that `old` serves.
fn replaces(new: &SavedPrompt, old: &SavedPrompt) -> bool {
    let within = if new.truncates { new.tokens.starts_with(&old.tokens) } else { new.tokens == old.tokens };
    within && is_of(old, &new.key())
}

impl fmt::Debug for PromptMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, bytes) = (self.len(), self.bytes());
        f.debug_struct("PromptMemory").field("entries", &len).field("bytes", &bytes).finish_non_exhaustive()
    }
}
