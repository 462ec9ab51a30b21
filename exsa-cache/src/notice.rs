//! Events for the operator.

use exsa_core::prompt_cache::EntryId;
use std::fmt;
use std::time::Duration;

/// An event of a cache, for the host's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheNotice {
    /// A file was damaged or did not match its name; it was removed.
    Damaged {
        /// Name of the file.
        file: String,
        /// The problem.
        problem: String,
    },
    /// An engine could not use an entry; it was removed.
    Refused {
        /// The entry.
        entry: EntryId,
        /// The reason.
        problem: String,
    },
    /// Writing failed, for example because the disk is full or the folder was removed. No entry is written
    /// until the next attempt.
    WritingSuspended {
        /// The reason.
        problem: String,
        /// Time until the next attempt.
        retry: Duration,
    },
    /// Writing works again.
    WritingResumed,
    /// An entry exceeds the limit of the cache, or the space not taken by pinned entries.
    TooLarge {
        /// Bytes of the entry.
        bytes: u64,
        /// Bytes available to it.
        allowed: u64,
    },
    /// The folder could not be listed.
    Unlisted {
        /// The reason.
        problem: String,
    },
}

impl fmt::Display for CacheNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { file, problem } => write!(f, "prompt cache: {file} removed: {problem}"),
            Self::Refused { entry, problem } => write!(f, "prompt cache: entry {entry} removed: {problem}"),
            Self::WritingSuspended { problem, retry } => {
                write!(f, "prompt cache: writing is suspended for {} s: {problem}", retry.as_secs())
            }
            Self::WritingResumed => f.write_str("prompt cache: writing works again"),
            Self::TooLarge { bytes, allowed } => {
                write!(f, "prompt cache: an entry of {bytes} bytes was not written; {allowed} are available")
            }
            Self::Unlisted { problem } => write!(f, "prompt cache: the folder cannot be listed: {problem}"),
        }
    }
}
