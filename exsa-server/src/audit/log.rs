//! The log: lines, files and their durability, without threads or a clock.

use super::chain::Chain;
use super::checkpoint::{SignedCheckpoint, SigningKey};
use super::folder::{Folder, LogFile};
use super::record::{Act, Record};
use super::recover::{Recovered, next_file, recover};
use std::fmt;
use std::io;
use std::mem;
use std::time::{Duration, SystemTime};

/// Durability policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Every batch of lines is synced before anything else happens.
    Every,
    /// Lines are synced after at most this time.
    Interval(Duration),
    /// The operating system decides when to write.
    Never,
}

/// Options of a log.
#[derive(Debug)]
pub(super) struct LogOptions {
    pub(super) fsync: Fsync,
    /// File length from which the next file is begun.
    pub(super) rotate_bytes: u64,
    /// File age from which the next file is begun.
    pub(super) rotate_age: Option<Duration>,
    /// Maximum bytes of pending lines.
    pub(super) pending_max: usize,
    /// Name of the log in checkpoints.
    pub(super) name: String,
    pub(super) key: Option<SigningKey>,
}

/// The file that is appended to.
struct Open<F> {
    file: F,
    /// Stable bytes: synced, or written if nothing is synced.
    stable: u64,
    /// Bytes of the pending lines that were already written to the file.
    written: usize,
    /// Time of its first line.
    begun: SystemTime,
    /// Whether a write or sync failed, so that the bytes after `stable` are unknown.
    doubtful: bool,
}

/// The log: a chain of lines in files.
///
/// Lines that are not stable are kept in memory. After a failed write or sync the file is truncated to its
/// stable length and they are written again: after a failed sync, the state of the previous bytes is unknown,
/// even if the next sync succeeds.
pub(super) struct Log<F: Folder> {
    folder: F,
    options: LogOptions,
    chain: Chain,
    /// End of the chain in the stable part.
    stable: Chain,
    open: Option<Open<F::File>>,
    pending: Vec<u8>,
    /// Lines that were dropped because too many were pending.
    dropped: u64,
}

impl<F: Folder> Log<F> {
    /// Opens a log; the second value lists repairs to record.
    ///
    /// # Errors
    ///
    /// A file cannot be read or repaired.
    pub(super) fn open(folder: F, options: LogOptions, now: SystemTime) -> io::Result<(Self, Vec<Record>)> {
        let Recovered { chain, file, begun, records } = recover(&folder)?;
        let open = match file {
            Some((name, stable)) => {
                let mut file = folder.open(&name)?;
                // Lines of a killed process may be in the file without being durable.
                file.sync()?;
                let begun = begun.unwrap_or(now);
                Some(Open { file, stable, written: 0, begun, doubtful: false })
            }
            None => None,
        };
        Ok((Self { folder, options, chain, stable: chain, open, pending: Vec::new(), dropped: 0 }, records))
    }

    /// Appends a line. Returns whether there was space for it.
    pub(super) fn push(&mut self, record: &Record, now: SystemTime) -> bool {
        if self.pending.len() >= self.options.pending_max {
            self.dropped += 1;
            return false;
        }
        if self.dropped > 0 {
            let detail =
                format!("{} lines were dropped: the log could not be written", mem::take(&mut self.dropped));
            self.chain.append(&Record::new(Act::LinesDropped).detail(detail), now, &mut self.pending);
        }
        self.chain.append(record, now, &mut self.pending);
        true
    }

    /// Counts lines that were dropped before they reached the log; their number is written with the next
    /// line.
    pub(super) fn drop_lines(&mut self, lines: u64) {
        self.dropped += lines;
    }

    /// Writes pending lines to the file, and syncs them if each batch is synced.
    ///
    /// # Errors
    ///
    /// Lines stay pending.
    pub(super) fn write(&mut self, now: SystemTime) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.is_full(now) {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            empty => {
                let file = self.folder.create(&next_file(self.stable))?;
                empty.insert(Open { file, stable: 0, written: 0, begun: now, doubtful: false })
            }
        };
        open.write(&self.pending)?;
        match self.options.fsync {
            Fsync::Every => self.sync(),
            Fsync::Interval(_) => Ok(()),
            Fsync::Never => {
                self.settle();
                Ok(())
            }
        }
    }

    /// Makes written lines durable.
    ///
    /// # Errors
    ///
    /// Lines stay pending, and are written again.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            open.write(&self.pending)?;
            open.file.sync().inspect_err(|_| open.doubtful = true)?;
            self.settle();
        }
        Ok(())
    }

    /// Marks all pending lines as stable.
    fn settle(&mut self) {
        if let Some(open) = &mut self.open {
            open.stable += self.pending.len() as u64;
            open.written = 0;
            self.stable = self.chain;
            self.pending.clear();
        }
    }

    /// Returns whether the next line begins a new file. A file with pending lines is not closed.
    fn is_full(&self, now: SystemTime) -> bool {
        let LogOptions { rotate_bytes, rotate_age, .. } = &self.options;
        self.open.as_ref().is_some_and(|open| {
            let age = now.duration_since(open.begun).unwrap_or_default();
            let old = rotate_age.is_some_and(|limit| age >= limit);
            open.written == 0 && !open.doubtful && open.stable > 0 && (old || open.stable >= *rotate_bytes)
        })
    }

    /// Appends a checkpoint of all lines so far, and returns it.
    pub(super) fn checkpoint(&mut self, now: SystemTime) -> Option<SignedCheckpoint> {
        let LogOptions { name, key, .. } = &self.options;
        let checkpoint = SignedCheckpoint::new(name, self.chain, now, key.as_ref());
        let mut record = Record::new(Act::Checkpoint);
        record.checkpoint = Some(checkpoint.clone());
        self.push(&record, now).then_some(checkpoint)
    }

    /// Number of lines in the chain, including pending ones.
    pub(super) fn count(&self) -> u64 {
        self.chain.count
    }

    /// Returns whether all lines are stable.
    pub(super) fn is_stable(&self) -> bool {
        self.pending.is_empty()
    }
}

impl<F: LogFile> Open<F> {
    /// Truncates the file to its stable bytes and appends `pending`.
    fn write(&mut self, pending: &[u8]) -> io::Result<()> {
        if self.doubtful {
            self.file.truncate(self.stable)?;
            (self.written, self.doubtful) = (0, false);
        }
        let written = self.file.append(&pending[self.written..]);
        match &written {
            Ok(()) => self.written = pending.len(),
            Err(_) => self.doubtful = true,
        }
        written
    }
}

impl<F: Folder> fmt::Debug for Log<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("chain", &self.chain)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}
