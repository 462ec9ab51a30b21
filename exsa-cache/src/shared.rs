//! State shared by the threads of a cache.

use crate::chain::Chains;
use crate::disk::{Disk, TEMPORARY, unique};
use crate::format::{EntryFile, FormatError};
use crate::index::{Entry, Index};
use crate::options::Listener;
use crate::seal::Sealer;
use crate::{CacheError, CacheNotice, CacheOptions, CacheStats};
use exsa_core::prompt_cache::{EntryId, ReadReply, SavedPrompt};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant, SystemTime};

/// File name extension of entries.
pub(crate) const ENTRY: &str = ".kv";
/// File name extension of the empty files that pin entries.
pub(crate) const PIN: &str = ".pin";

/// State shared by the cache and its threads. No lock is held during disk operations.
pub(crate) struct Shared {
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) sealer: Sealer,
    pub(crate) chains: Chains,
    pub(crate) bytes_max: u64,
    pub(crate) age_max: Duration,
    pub(crate) queue_max: usize,
    pub(crate) retry: Duration,
    pub(crate) scan_interval: Duration,
    listener: Option<Listener>,
    pub(crate) state: Mutex<State>,
    /// Signals work for the writing thread.
    pub(crate) to_write: Condvar,
    /// Signals work for the reading thread.
    pub(crate) to_read: Condvar,
    /// Signals that a record was written or abandoned.
    pub(crate) written: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) queue: VecDeque<SavedPrompt>,
    /// Entries that engines refused.
    pub(crate) refused: Vec<(EntryId, String)>,
    pub(crate) is_writing: bool,
    pub(crate) reads: VecDeque<(EntryId, ReadReply)>,
    /// Spare buffers for records.
    pub(crate) buffers: Vec<Vec<u8>>,
    /// Time until which writing is suspended after a failure.
    pub(crate) suspended: Option<Instant>,
    pub(crate) is_stopping: bool,
    pub(crate) stats: CacheStats,
    /// Whether an entry that is too large was already reported.
    pub(crate) told_too_large: bool,
}

impl Shared {
    pub(crate) fn new(disk: Box<dyn Disk>, options: &CacheOptions) -> Self {
        Self {
            disk,
            sealer: Sealer::new(options.key.as_ref()),
            chains: Chains::new(options.key.as_ref()),
            bytes_max: options.bytes_max,
            age_max: options.age_max,
            queue_max: options.queue_max,
            retry: options.retry,
            scan_interval: options.scan_interval,
            listener: options.listener.clone(),
            state: Mutex::default(),
            to_write: Condvar::new(),
            to_read: Condvar::new(),
            written: Condvar::new(),
        }
    }

    pub(crate) fn tell(&self, notice: &CacheNotice) {
        if let Some(listener) = &self.listener {
            listener(notice);
        }
    }

    /// Updates the index from the folder, which other processes also change, and removes files that are
    /// damaged, abandoned or too old.
    pub(crate) fn scan(&self) -> io::Result<()> {
        let files = self.disk.list()?;
        let pinned: hashbrown::HashSet<_> =
            files.iter().filter_map(|file| parse_id(&file.name, PIN)).collect();
        let mut present = hashbrown::HashSet::new();
        for file in &files {
            if file.name.ends_with(TEMPORARY) && self.disk.is_abandoned(file) {
                // Another process may have removed it first.
                let _ = self.disk.remove(&file.name);
            }
            let Some(id) = parse_id(&file.name, ENTRY) else { continue };
            present.insert(id);
            let mut state = self.state.lock();
            let known = state.index.get(id).is_some_and(|entry| entry.bytes == file.bytes);
            if known {
                state.index.touch(id, file.modified);
                state.index.pin(id, pinned.contains(&id));
                continue;
            }
            drop(state);
            let read = self.read_index(id, &file.name);
            let found = match read {
                Ok(found) => Some(found),
                Err(FormatError::Foreign(_)) => None,
                Err(FormatError::Damaged(problem)) => {
                    self.remove_damaged(id, &file.name, problem);
                    continue;
                }
                Err(FormatError::Io(_)) => continue,
            };
            let pinned = pinned.contains(&id);
            let entry = Entry { file: found, bytes: file.bytes, used: file.modified, pinned };
            self.state.lock().index.insert(id, entry);
        }
        let mut state = self.state.lock();
        let gone: Vec<_> = state.index.iter().map(|(id, _)| id).filter(|id| !present.contains(id)).collect();
        gone.into_iter().for_each(|id| drop(state.index.remove(id)));
        let expired = state.index.expired(SystemTime::now(), self.age_max);
        drop(state);
        for id in expired {
            if self.remove_unpinned(id) {
                self.state.lock().stats.expired += 1;
            }
        }
        self.make_room(0);
        Ok(())
    }

    fn read_index(&self, id: EntryId, name: &str) -> Result<EntryFile, FormatError> {
        let (mut from, bytes) = self.disk.open(name)?;
        let (_, file) = EntryFile::read_index(&mut *from, bytes, &self.sealer)?;
        if file.id != id {
            return Err(FormatError::Damaged("its name belongs to another entry"));
        }
        Ok(file)
    }

    /// Removes least recently used entries until `bytes` more fit. Returns whether they do.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let state = self.state.lock();
        let mut excess = (state.index.bytes() + bytes).saturating_sub(self.bytes_max);
        if excess == 0 {
            return true;
        }
        let candidates = state.index.oldest();
        drop(state);
        for (_, id) in candidates {
            let freed = self.state.lock().index.get(id).map_or(0, |entry| entry.bytes);
            if self.remove_unpinned(id) {
                self.state.lock().stats.evicted += 1;
                excess = excess.saturating_sub(freed);
            }
            if excess == 0 {
                return true;
            }
        }
        false
    }

    /// Removes an entry, unless another process has pinned it.
    fn remove_unpinned(&self, id: EntryId) -> bool {
        if self.disk.open(&format!("{id}{PIN}")).is_ok() {
            self.state.lock().index.pin(id, true);
            return false;
        }
        self.remove(id);
        true
    }

    /// Removes an entry and its pin.
    pub(crate) fn remove(&self, id: EntryId) {
        self.state.lock().index.remove(id);
        for ending in [ENTRY, PIN] {
            // Another process may have removed it first. If the folder cannot be changed, writing is
            // suspended.
            let _ = self.disk.remove(&format!("{id}{ending}"));
        }
    }

    pub(crate) fn remove_damaged(&self, id: EntryId, name: &str, problem: &str) {
        self.remove(id);
        self.state.lock().stats.damaged += 1;
        self.tell(&CacheNotice::Damaged { file: name.to_owned(), problem: problem.to_owned() });
    }

    /// Writes a file atomically under `name`.
    pub(crate) fn write_file(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CacheError> {
        let temporary = format!("{}{TEMPORARY}", unique()?);
        let written = self.disk.create(&temporary).and_then(|mut file| {
            content(&mut &mut *file)?;
            file.sync()?;
            // Renamed before the file is closed, which releases its lock.
            self.disk.rename(&temporary, name)
        });
        if written.is_err() {
            let _ = self.disk.remove(&temporary);
        }
        Ok(written?)
    }

    /// Adds an entry that was written.
    pub(crate) fn add(&self, file: EntryFile, bytes: u64) {
        let id = file.id;
        let mut state = self.state.lock();
        let pinned = state.index.get(id).is_some_and(|entry| entry.pinned);
        state.index.insert(id, Entry { file: Some(file), bytes, used: SystemTime::now(), pinned });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// The id of the entry in a file name with this extension.
fn parse_id(name: &str, ending: &str) -> Option<EntryId> {
    let digits = name.strip_suffix(ending)?.as_bytes();
    let mut id = [0; 16];
    if digits.len() != 32 || digits.iter().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (to, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *to = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(EntryId(id))
}

/// Whether an error means that a file does not exist.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}
