//! Verifies a log: finds altered, missing, reordered, repeated and truncated lines.
//!
//! Memory does not depend on the length of the log: only the last line, the most recent gaps and the next
//! checkpoint are kept.

use super::chain::Link;
use super::checkpoint::{PublicKey, SignedCheckpoint};
use super::hash::Hash;
use super::lines::{Line, Lines};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead};
use std::sync::Arc;

/// Gaps whose position is remembered, to distinguish lines out of order from repeated ones.
const GAPS_MAX: usize = 64;

/// Location of a line in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// File.
    pub file: Arc<str>,
    /// Line in the file, from 1.
    pub line: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A finding. Line numbers are positions in the chain (`seq`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// A line was altered.
    #[error("{at}: line {seq} was altered")]
    Altered {
        /// Place.
        at: Location,
        /// Number.
        seq: u64,
    },
    /// One of two lines was altered; no third line determines which.
    #[error("{at}: line {seq} or the line before it was altered")]
    AlteredPair {
        /// Place of the second.
        at: Location,
        /// Number of the second.
        seq: u64,
    },
    /// A line is not a valid log line.
    #[error("{at}: altered: not a line of an audit log: {reason}")]
    Unreadable {
        /// Place.
        at: Location,
        /// The reason.
        reason: String,
    },
    /// Lines are missing.
    #[error("{at}: lines {first} to {last} are missing before it")]
    Missing {
        /// Place of the line after them.
        at: Location,
        /// First missing number.
        first: u64,
        /// Last missing number.
        last: u64,
    },
    /// A line is out of order.
    #[error("{at}: line {seq} is out of order: it stands behind line {behind}")]
    Reordered {
        /// Place.
        at: Location,
        /// Number.
        seq: u64,
        /// The highest number before it.
        behind: u64,
    },
    /// A line is repeated.
    #[error("{at}: line {seq} is there again")]
    Repeated {
        /// Place.
        at: Location,
        /// Number.
        seq: u64,
    },
    /// A file ends in the middle of a line.
    #[error("{at}: the line has no end: the file was truncated, or a crash interrupted the write")]
    Torn {
        /// Place.
        at: Location,
    },
    /// A checkpoint counts more lines than there are.
    #[error(
        "the log was truncated: it ends with line {last}, but a checkpoint of {time} counts {count} lines"
    )]
    Truncated {
        /// Number of the last line.
        last: u64,
        /// Lines by the checkpoint.
        count: u64,
        /// Time of the checkpoint.
        time: String,
    },
    /// The hash of a line differs from that in a checkpoint.
    #[error("{at}: line {seq} or one before it was altered: the checkpoint of {time} has another hash")]
    Checkpoint {
        /// Place.
        at: Location,
        /// Number.
        seq: u64,
        /// Time of the checkpoint.
        time: String,
    },
    /// A checkpoint has no valid signature of a known key.
    #[error("the checkpoint of {count} lines at {time} has no valid signature of a given key")]
    Signature {
        /// Lines by the checkpoint.
        count: u64,
        /// Time of the checkpoint.
        time: String,
    },
    /// Checkpoints of the second place are out of order.
    #[error("checkpoints: the one of {count} lines follows one of {before} lines")]
    CheckpointOrder {
        /// Its count.
        count: u64,
        /// The count before it.
        before: u64,
    },
    /// A line of the second place is not a checkpoint.
    #[error("checkpoints, line {line}: {reason}")]
    CheckpointUnreadable {
        /// Line in the file, from 1.
        line: u64,
        /// The reason.
        reason: String,
    },
    /// Signatures were required, but there are none.
    #[error("no checkpoint has a valid signature of a given key")]
    Unsigned,
    /// The log is empty.
    #[error("the log has no line")]
    Empty,
}

/// Summary of a verification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Lines read.
    pub lines: u64,
    /// Number of the first line.
    pub first: u64,
    /// Highest number of a line.
    pub last: u64,
    /// Checkpoints compared with lines, in the log and in the second place.
    pub checkpoints: u64,
    /// Lines covered by a validly signed checkpoint.
    pub signed: u64,
    /// Findings.
    pub findings: u64,
}

/// Options of a verification.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Public keys. Without keys, signatures are not checked.
    pub keys: Vec<PublicKey>,
    /// Whether the first files of the log may be absent.
    pub partial: bool,
}

impl VerifyOptions {
    /// Adds a key.
    #[must_use]
    pub fn key(mut self, key: PublicKey) -> Self {
        self.keys.push(key);
        self
    }

    /// Sets whether the first files of the log may be absent.
    #[must_use]
    pub fn partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }
}

/// A line that was read.
#[derive(Clone, Debug)]
struct Seen {
    at: Location,
    seq: u64,
    hash: Hash,
}

/// A verification in progress.
pub struct Verifier<R, F> {
    options: VerifyOptions,
    checkpoints: Option<Checkpoints<R>>,
    report: F,
    summary: Summary,
    /// The line with the highest number.
    last: Option<Seen>,
    /// Two adjacent lines whose hashes do not match: the next line determines which one was altered.
    suspects: Option<(Seen, Seen)>,
    /// Unreadable lines since the last readable one.
    unreadable: u64,
    gaps: VecDeque<(u64, u64)>,
}

impl<R: BufRead, F: FnMut(Finding)> Verifier<R, F> {
    /// Starts a verification; `checkpoints` reads those of the second place.
    pub fn new(options: VerifyOptions, checkpoints: Option<R>, report: F) -> Self {
        let checkpoints =
            checkpoints.map(|reader| Checkpoints { lines: Lines::new(reader), next: None, count: 0 });
        Self {
            options,
            checkpoints,
            report,
            summary: Summary::default(),
            last: None,
            suspects: None,
            unreadable: 0,
            gaps: VecDeque::new(),
        }
    }

    fn found(&mut self, finding: Finding) {
        self.summary.findings += 1;
        (self.report)(finding);
    }

    /// Reads the next file of the chain.
    ///
    /// # Errors
    ///
    /// The file or the checkpoints cannot be read.
    pub fn file(&mut self, name: &str, reader: impl BufRead) -> io::Result<()> {
        let file: Arc<str> = name.into();
        let mut lines = Lines::new(reader);
        while let Some(line) = lines.next()? {
            let at = |line| Location { file: file.clone(), line };
            match line {
                Line::Whole(bytes) => {
                    let (link, hash) = (Link::read(bytes), Hash::of(bytes));
                    let at = at(lines.number);
                    match link {
                        Ok(link) => self.line(at, link, hash)?,
                        Err(reason) => self.unreadable(at, reason),
                    }
                }
                Line::TooLong => self.unreadable(at(lines.number), "the line is too long".into()),
                Line::Torn(_) => self.found(Finding::Torn { at: at(lines.number) }),
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, at: Location, reason: String) {
        self.summary.lines += 1;
        self.unreadable += 1;
        self.found(Finding::Unreadable { at, reason });
    }

    fn line(&mut self, at: Location, link: Link, hash: Hash) -> io::Result<()> {
        self.summary.lines += 1;
        let Link { seq, prev, checkpoint, .. } = link;
        let seen = Seen { at, seq, hash };
        self.judge(Some((seq, prev)));
        let unreadable = std::mem::take(&mut self.unreadable);
        match self.last.clone() {
            None => self.first(&seen, prev, unreadable),
            Some(last) if seq == last.seq && hash == last.hash => {
                self.found(Finding::Repeated { at: seen.at, seq });
                return Ok(());
            }
            Some(last) if seq <= last.seq => {
                let skipped = self.gaps.iter().any(|(first, last)| (*first..=*last).contains(&seq));
                self.found(match skipped {
                    true => Finding::Reordered { at: seen.at, seq, behind: last.seq },
                    false => Finding::Repeated { at: seen.at, seq },
                });
                return Ok(());
            }
            Some(last) => {
                let gap = seq - last.seq - 1;
                if gap == 0 && prev != last.hash {
                    self.suspects = Some((last, seen.clone()));
                } else if gap > unreadable {
                    self.missing(&seen.at, last.seq + 1 + unreadable, seq - 1);
                }
            }
        }
        self.compare(&seen)?;
        if let Some(checkpoint) = checkpoint {
            self.inner_checkpoint(&seen, prev, &checkpoint);
        }
        self.summary.last = seq;
        self.last = Some(seen);
        Ok(())
    }

    /// Handles the first readable line.
    fn first(&mut self, seen: &Seen, prev: Hash, unreadable: u64) {
        let before = seen.seq.saturating_sub(1);
        self.summary.first = seen.seq.saturating_sub(unreadable).max(1);
        if seen.seq == 0 || (before == 0 && prev != Hash::ZERO) {
            self.found(Finding::Altered { at: seen.at.clone(), seq: seen.seq });
        } else if before > unreadable && !self.options.partial {
            self.missing(&seen.at, 1 + unreadable, before);
        }
    }

    fn missing(&mut self, at: &Location, first: u64, last: u64) {
        if self.gaps.len() == GAPS_MAX {
            self.gaps.pop_front();
        }
        self.gaps.push_back((first, last));
        self.found(Finding::Missing { at: at.clone(), first, last });
    }

    /// Determines from the next line which of two adjacent lines was altered.
    fn judge(&mut self, next: Option<(u64, Hash)>) {
        let Some((first, second)) = self.suspects.take() else { return };
        let follows = next.filter(|(seq, _)| *seq == second.seq + 1);
        self.found(match follows {
            Some((_, prev)) if prev == second.hash => Finding::Altered { at: first.at, seq: first.seq },
            Some(_) => Finding::Altered { at: second.at, seq: second.seq },
            None => Finding::AlteredPair { at: second.at, seq: second.seq },
        });
    }

    /// Compares a line with checkpoints of the second place.
    fn compare(&mut self, seen: &Seen) -> io::Result<()> {
        while let Some(checkpoint) = self.next_checkpoint(seen.seq)? {
            if checkpoint.count == seen.seq {
                self.summary.checkpoints += 1;
                if checkpoint.hash != seen.hash {
                    let (at, seq) = (seen.at.clone(), seen.seq);
                    self.found(Finding::Checkpoint { at, seq, time: checkpoint.time.clone() });
                } else {
                    self.signed(&checkpoint);
                }
            }
        }
        Ok(())
    }

    /// Handles a checkpoint in the log, which describes the previous line.
    fn inner_checkpoint(&mut self, seen: &Seen, prev: Hash, checkpoint: &SignedCheckpoint) {
        self.summary.checkpoints += 1;
        if checkpoint.count.checked_add(1) != Some(seen.seq) || checkpoint.hash != prev {
            let (at, seq) = (seen.at.clone(), seen.seq);
            self.found(Finding::Checkpoint { at, seq, time: checkpoint.time.clone() });
        } else {
            self.signed(checkpoint);
        }
    }

    fn signed(&mut self, checkpoint: &SignedCheckpoint) {
        if self.options.keys.is_empty() {
            return;
        }
        match checkpoint.is_signed_by(&self.options.keys) {
            true => self.summary.signed = self.summary.signed.max(checkpoint.count),
            false => {
                let (count, time) = (checkpoint.count, checkpoint.time.clone());
                self.found(Finding::Signature { count, time });
            }
        }
    }

    /// Returns the next checkpoint of the second place, if it counts at most `max` lines.
    fn next_checkpoint(&mut self, max: u64) -> io::Result<Option<SignedCheckpoint>> {
        loop {
            let Some(checkpoints) = &mut self.checkpoints else { return Ok(None) };
            match checkpoints.next(max)? {
                Read::None => return Ok(None),
                Read::Checkpoint(checkpoint, before) => {
                    if checkpoint.count < before {
                        self.found(Finding::CheckpointOrder { count: checkpoint.count, before });
                    }
                    return Ok(Some(checkpoint));
                }
                Read::Unreadable(line, reason) => self.found(Finding::CheckpointUnreadable { line, reason }),
            }
        }
    }

    /// Completes the verification.
    ///
    /// # Errors
    ///
    /// The checkpoints cannot be read.
    pub fn end(mut self) -> io::Result<Summary> {
        self.judge(None);
        if self.summary.lines == 0 {
            self.found(Finding::Empty);
        }
        let last = self.summary.last + self.unreadable;
        let mut beyond: Option<SignedCheckpoint> = None;
        while let Some(checkpoint) = self.next_checkpoint(u64::MAX)? {
            let more = checkpoint.count > beyond.as_ref().map_or(last, |beyond| beyond.count);
            // A forged checkpoint must not cause a false alarm.
            let known = self.options.keys.is_empty() || checkpoint.is_signed_by(&self.options.keys);
            match known {
                true if more => beyond = Some(checkpoint),
                true => {}
                false => {
                    let (count, time) = (checkpoint.count, checkpoint.time);
                    self.found(Finding::Signature { count, time });
                }
            }
        }
        if let Some(SignedCheckpoint { count, time, .. }) = beyond {
            self.found(Finding::Truncated { last, count, time });
        }
        if !self.options.keys.is_empty() && self.summary.signed == 0 {
            self.found(Finding::Unsigned);
        }
        Ok(self.summary)
    }
}

impl<R, F> fmt::Debug for Verifier<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// Reader of the checkpoints of the second place.
struct Checkpoints<R> {
    lines: Lines<R>,
    next: Option<SignedCheckpoint>,
    /// Count of the previous checkpoint.
    count: u64,
}

enum Read {
    None,
    /// A checkpoint, and the count of the previous one.
    Checkpoint(SignedCheckpoint, u64),
    /// A line that is not a checkpoint: its number and the reason.
    Unreadable(u64, String),
}

impl<R: BufRead> Checkpoints<R> {
    fn next(&mut self, max: u64) -> io::Result<Read> {
        if self.next.is_none() {
            let line = match self.lines.next()? {
                None => return Ok(Read::None),
                Some(Line::TooLong) => Err("the line is too long".to_owned()),
                Some(Line::Whole(line)) => serde_json::from_slice(line).map_err(|error| error.to_string()),
                // A crash while writing the last checkpoint does not affect the log.
                Some(Line::Torn(_)) => return Ok(Read::None),
            };
            match line {
                Ok(checkpoint) => self.next = Some(checkpoint),
                Err(reason) => return Ok(Read::Unreadable(self.lines.number, reason)),
            }
        }
        let due = self.next.take_if(|next| next.count <= max);
        Ok(due.map_or(Read::None, |checkpoint| {
            let before = std::mem::replace(&mut self.count, checkpoint.count);
            Read::Checkpoint(checkpoint, before)
        }))
    }
}
