//! The prompt cache.

use crate::disk::{Disk, Folder};
use crate::format::EntryFile;
use crate::shared::{ENTRY, PIN, Shared};
use crate::{CacheError, CacheOptions, CacheStats, FormatError, reader, writer};
use exsa_core::prompt_cache::{EntryId, PromptKey, PromptStore, ReadReply, SavedPrompt, StoredPrefix};
use parking_lot::Mutex;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Maximum bytes of an imported file in addition to its record.
const IMPORT_SLACK: u64 = 64 << 20;

/// A prompt store in a folder, for any number of engines and models.
///
/// Dropping the cache first writes the records in its queue.
#[derive(Debug)]
pub struct PromptCache {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// An entry of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// The entry.
    pub id: EntryId,
    /// Fingerprint of the model; `None` for a file of another key or version, for which only the size is
    /// known.
    pub fingerprint: Option<u64>,
    /// Number of tokens.
    pub tokens: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Time of the last use.
    pub used: SystemTime,
    /// Whether the entry is pinned, that is, kept regardless of age and space.
    pub pinned: bool,
}

impl PromptCache {
    /// Opens or creates a folder, and starts the threads.
    ///
    /// # Errors
    ///
    /// [`CacheError::Folder`] if the folder cannot be created, read or written, or is accessible to other
    /// users.
    pub fn open(options: CacheOptions) -> Result<Self, CacheError> {
        let disk = Folder::open(&options.folder)?;
        Self::with_disk(Box::new(disk), &options)
    }

    pub(crate) fn with_disk(disk: Box<dyn Disk>, options: &CacheOptions) -> Result<Self, CacheError> {
        let shared = Arc::new(Shared::new(disk, options));
        shared.scan()?;
        let spawn = |name: &str, work: fn(&Shared)| {
            let shared = shared.clone();
            std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared))
        };
        let cache = Self { shared: shared.clone(), threads: Mutex::default() };
        for (name, work) in
            [("exsa-cache-write", writer::run as fn(&Shared)), ("exsa-cache-read", reader::run)]
        {
            cache.threads.lock().push(spawn(name, work)?);
        }
        Ok(cache)
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        let state = self.shared.state.lock();
        CacheStats {
            entries: state.index.len(),
            bytes: state.index.bytes(),
            pinned: state.index.pinned(),
            suspended: state.suspended.is_some(),
            ..state.stats
        }
    }

    /// All entries, most recently used first.
    pub fn list(&self) -> Vec<EntryInfo> {
        let state = self.shared.state.lock();
        let mut all: Vec<_> = state
            .index
            .iter()
            .map(|(id, entry)| EntryInfo {
                id,
                fingerprint: entry.file.as_ref().map(|file| file.fingerprint),
                tokens: entry.tokens(),
                bytes: entry.bytes,
                used: entry.used,
                pinned: entry.pinned,
            })
            .collect();
        drop(state);
        all.sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.used), entry.id));
        all
    }

    /// Pins or unpins an entry, such as a system prompt or a document. A pinned entry is removed neither
    /// because of its age nor to make room. Pins apply to all processes, and survive restarts.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unknown`] if the entry does not exist, [`CacheError::Io`] if the pin cannot be written.
    pub fn pin(&self, id: EntryId, pinned: bool) -> Result<(), CacheError> {
        if self.shared.state.lock().index.get(id).is_none() {
            return Err(CacheError::Unknown(id));
        }
        let name = format!("{id}{PIN}");
        if pinned {
            self.shared.write_file(&name, |_| Ok(()))?;
        } else {
            match self.shared.disk.remove(&name) {
                Err(error) if !crate::shared::is_gone(&error) => return Err(error.into()),
                _ => {}
            }
        }
        self.shared.state.lock().index.pin(id, pinned);
        Ok(())
    }

    /// Removes an entry, pinned or not. Returns whether it existed.
    pub fn remove(&self, id: EntryId) -> bool {
        let known = self.shared.state.lock().index.get(id).is_some();
        self.shared.remove(id);
        known
    }

    /// Copies the file of an entry, in its encrypted form, for [`import`](Self::import) into another folder.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unknown`] if the entry does not exist, [`CacheError::Io`] for errors of `to` and of the
    /// disk.
    pub fn export(&self, id: EntryId, to: &mut dyn Write) -> Result<(), CacheError> {
        let opened = self.shared.disk.open(&format!("{id}{ENTRY}"));
        let (mut from, _) = opened.map_err(|error| match crate::shared::is_gone(&error) {
            true => CacheError::Unknown(id),
            false => error.into(),
        })?;
        io::copy(&mut *from, to)?;
        Ok(())
    }

    /// Imports an exported entry that was written with the same key. Returns its id.
    ///
    /// # Errors
    ///
    /// [`CacheError::Format`] for damaged data or another key, [`CacheError::Io`] for errors of `from` and of
    /// the disk, and if there is no space for the entry.
    pub fn import(&self, from: &mut dyn Read) -> Result<EntryId, CacheError> {
        let limit = self.shared.bytes_max.saturating_add(IMPORT_SLACK);
        let mut bytes = Vec::new();
        from.take(limit).read_to_end(&mut bytes)?;
        let length = bytes.len() as u64;
        let mut rest = bytes.as_slice();
        let (header, file) = EntryFile::read_index(&mut rest, length, &self.shared.sealer)?;
        drop(header.read_record(&mut rest, &self.shared.sealer)?);
        if length > self.shared.bytes_max || !self.shared.make_room(length) {
            return Err(io::Error::other(format!("no space for an entry of {length} bytes")).into());
        }
        let id = file.id;
        self.shared.write_file(&format!("{id}{ENTRY}"), |to| to.write_all(&bytes))?;
        self.shared.add(file, length);
        Ok(id)
    }

    /// Waits at most `timeout` until all accepted records are written or abandoned. Returns whether they are.
    pub fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now().checked_add(timeout);
        let mut state = self.shared.state.lock();
        while state.is_writing || !state.queue.is_empty() {
            match until {
                Some(until) if self.shared.written.wait_until(&mut state, until).timed_out() => {
                    return !state.is_writing && state.queue.is_empty();
                }
                Some(_) => {}
                None => self.shared.written.wait(&mut state),
            }
        }
        true
    }

    /// Scans the folder now, instead of at the next interval, to find entries of other processes.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`] if the folder cannot be listed.
    pub fn refresh(&self) -> Result<(), CacheError> {
        Ok(self.shared.scan()?)
    }

    /// Reads the record of an entry on the calling thread, for checking a folder.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unknown`] if the entry does not exist, [`CacheError::Format`] if it is damaged.
    pub fn record(&self, id: EntryId) -> Result<Vec<u8>, CacheError> {
        let opened = self.shared.disk.open(&format!("{id}{ENTRY}"));
        let (mut from, bytes) = opened.map_err(|_| CacheError::Unknown(id))?;
        let (header, file) = EntryFile::read_index(&mut *from, bytes, &self.shared.sealer)?;
        if file.id != id {
            return Err(FormatError::Damaged("its name belongs to another entry").into());
        }
        Ok(header.read_record(&mut *from, &self.shared.sealer)?)
    }
}

impl PromptStore for PromptCache {
    fn find(&self, key: &PromptKey<'_>, whole: bool) -> Option<StoredPrefix> {
        let mut state = self.shared.state.lock();
        state.stats.lookups += 1;
        let found = state.index.find(&self.shared.chains, key, whole);
        state.stats.hits += u64::from(found.is_some());
        found
    }

    fn read(&self, entry: EntryId, reply: ReadReply) {
        let mut state = self.shared.state.lock();
        if state.is_stopping {
            drop(state);
            return reply.failed("the prompt cache is closed");
        }
        state.reads.push_back((entry, reply));
        drop(state);
        self.shared.to_read.notify_one();
    }

    fn buffer(&self, bytes: u64, wait: Duration) -> Option<Vec<u8>> {
        let until = Instant::now().checked_add(wait)?;
        let mut state = self.shared.state.lock();
        loop {
            let suspended = state.suspended.is_some_and(|until| Instant::now() < until);
            if state.is_stopping || suspended || bytes > self.shared.bytes_max {
                return None;
            }
            if state.queue.len() + usize::from(state.is_writing) < self.shared.queue_max {
                return Some(state.buffers.pop().unwrap_or_default());
            }
            if self.shared.written.wait_until(&mut state, until).timed_out() {
                return None;
            }
        }
    }

    fn write(&self, prompt: SavedPrompt) {
        let mut state = self.shared.state.lock();
        if state.is_stopping {
            return;
        }
        state.queue.push_back(prompt);
        drop(state);
        self.shared.to_write.notify_one();
    }

    fn refused(&self, entry: EntryId, reason: &str) {
        let mut state = self.shared.state.lock();
        // Must not be found again, even before the file is removed.
        state.index.remove(entry);
        state.refused.push((entry, reason.to_owned()));
        drop(state);
        self.shared.to_write.notify_one();
    }
}

impl Drop for PromptCache {
    fn drop(&mut self) {
        self.shared.state.lock().is_stopping = true;
        self.shared.to_write.notify_all();
        self.shared.to_read.notify_all();
        self.shared.written.notify_all();
        for thread in self.threads.lock().drain(..) {
            // A panicking listener ends a thread; this needs no further handling.
            let _ = thread.join();
        }
    }
}
