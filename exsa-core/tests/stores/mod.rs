//! In-memory prompt stores for tests: correct ones, and ones that are slow, fail, or return wrong records.
#![allow(dead_code)]

use exsa_core::clock::{Clock, ManualClock};
use exsa_core::prompt_cache::{EntryId, PromptKey, PromptStore, ReadReply, SavedPrompt, StoredPrefix};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a [`MemoryStore`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads end at once.
    Fast,
    /// Reads complete after a delay, in a different order.
    Slow,
    /// Reads fail.
    Failing,
    /// Replies are dropped.
    Dropping,
    /// Some reads never end.
    Silent,
    /// Claims more common tokens than there are.
    Boasting,
    /// Returns the record of another entry.
    Confused,
    /// Returns damaged or cut records.
    Damaged,
    /// Accepts records only sometimes.
    Full,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Fast,
        Self::Slow,
        Self::Failing,
        Self::Dropping,
        Self::Silent,
        Self::Boasting,
        Self::Confused,
        Self::Damaged,
        Self::Full,
    ];
}

#[derive(Clone, Debug)]
pub struct MemoryStore {
    kind: Kind,
    clock: ManualClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<SavedPrompt>,
    pending: Vec<(Duration, usize, ReadReply)>,
    calls: u64,
    refused: u64,
}

impl MemoryStore {
    pub fn new(kind: Kind, clock: &ManualClock) -> Self {
        Self { kind, clock: clock.clone(), state: Arc::default() }
    }

    /// The same entries with a different behaviour.
    pub fn behaving(&self, kind: Kind) -> Self {
        Self { kind, ..self.clone() }
    }

    /// Sends the replies that are due.
    pub fn tick(&self) {
        let now = self.clock.now();
        loop {
            let mut state = self.state.lock().unwrap();
            let Some(at) = state.pending.iter().position(|(due, ..)| *due <= now) else { return };
            let (_, entry, reply) = state.pending.remove(at);
            let record = state.entries[entry].record.clone();
            drop(state);
            reply.done(record, Duration::from_millis(3));
        }
    }

    pub fn len(&self) -> usize {
        self.state.lock().unwrap().entries.len()
    }

    /// Records that the engine refused.
    pub fn refused(&self) -> u64 {
        self.state.lock().unwrap().refused
    }

    /// Tokens of the entries in the order in which they were written.
    pub fn lengths(&self) -> Vec<usize> {
        self.state.lock().unwrap().entries.iter().map(|entry| entry.tokens.len()).collect()
    }
}

fn id(index: usize) -> EntryId {
    EntryId((index as u128).to_le_bytes())
}

impl PromptStore for MemoryStore {
    fn find(&self, key: &PromptKey<'_>, whole: bool) -> Option<StoredPrefix> {
        let state = self.state.lock().unwrap();
        let common = |entry: &SavedPrompt| {
            let own = entry.key();
            if (own.fingerprint, own.adapter, own.salt) != (key.fingerprint, key.adapter, key.salt) {
                return 0;
            }
            let common = own.tokens.iter().zip(key.tokens).take_while(|(a, b)| a == b).count();
            if whole && common < own.tokens.len() { 0 } else { common }
        };
        let found = state.entries.iter().enumerate().map(|(index, entry)| (common(entry), index));
        let (common, index) = found.filter(|(common, _)| *common > 0).max()?;
        let tokens = if self.kind == Kind::Boasting { key.tokens.len() } else { common };
        Some(StoredPrefix::new(id(index), tokens, state.entries[index].record.len() as u64))
    }

    fn read(&self, entry: EntryId, reply: ReadReply) {
        let index = u128::from_le_bytes(entry.0) as usize;
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let (calls, count) = (state.calls, state.entries.len());
        let mut record = state.entries[index].record.clone();
        match self.kind {
            Kind::Slow => {
                let due = self.clock.now() + Duration::from_millis(calls * 37 % 200);
                return state.pending.push((due, index, reply));
            }
            Kind::Silent if calls.is_multiple_of(2) => {
                let due = Duration::MAX;
                return state.pending.push((due, index, reply));
            }
            Kind::Confused => record.clone_from(&state.entries[(index + calls as usize) % count].record),
            Kind::Damaged => {
                let at = calls as usize * 7919 % record.len();
                if calls.is_multiple_of(3) {
                    record.truncate(at);
                } else {
                    record[at] ^= 1 << (calls % 8);
                }
            }
            _ => {}
        }
        drop(state);
        match self.kind {
            Kind::Failing => reply.failed("the disk is gone"),
            Kind::Dropping => drop(reply),
            _ => reply.done(record, Duration::from_millis(1)),
        }
    }

    fn buffer(&self, _bytes: u64, _wait: Duration) -> Option<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        (self.kind != Kind::Full || state.calls.is_multiple_of(3)).then(Vec::new)
    }

    fn write(&self, prompt: SavedPrompt) {
        self.state.lock().unwrap().entries.push(prompt);
    }

    fn refused(&self, _entry: EntryId, reason: &str) {
        assert!(!reason.is_empty());
        self.state.lock().unwrap().refused += 1;
    }
}
