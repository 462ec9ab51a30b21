//! Options of a cache.

use crate::{CacheKey, CacheNotice};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Receives notices, on any thread.
pub(crate) type Listener = Arc<dyn Fn(&CacheNotice) + Send + Sync>;

/// Options of a [`PromptCache`](crate::PromptCache).
#[derive(Clone)]
#[non_exhaustive]
pub struct CacheOptions {
    /// The folder, created with mode 0700 if it does not exist.
    pub folder: PathBuf,
    /// Maximum bytes of all entries; 4 GiB by default.
    pub bytes_max: u64,
    /// Time without use after which an entry is removed; 30 days by default.
    pub age_max: Duration,
    /// Key for encrypting entries; `None`, the default, stores them unencrypted, so that anyone who can read
    /// the folder can read the prompts.
    pub key: Option<CacheKey>,
    /// Maximum records in memory that wait to be written; 2 by default.
    pub queue_max: usize,
    /// Time for which writing is suspended after a failure; 60 s by default.
    pub retry: Duration,
    /// Interval at which the folder is scanned for entries of other processes; 60 s by default.
    pub scan_interval: Duration,
    pub(crate) listener: Option<Listener>,
}

impl CacheOptions {
    /// The default options for a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            bytes_max: 4 << 30,
            age_max: Duration::from_secs(30 * 24 * 3600),
            key: None,
            queue_max: 2,
            retry: Duration::from_secs(60),
            scan_interval: Duration::from_secs(60),
            listener: None,
        }
    }

    /// Sets the maximum bytes of all entries.
    #[must_use]
    pub fn bytes_max(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// Sets the time without use after which an entry is removed.
    #[must_use]
    pub fn age_max(mut self, age_max: Duration) -> Self {
        self.age_max = age_max;
        self
    }

    /// Sets the key for encrypting entries.
    #[must_use]
    pub fn key(mut self, key: impl Into<Option<CacheKey>>) -> Self {
        self.key = key.into();
        self
    }

    /// Sets the maximum records that wait to be written, at least 1.
    #[must_use]
    pub fn queue_max(mut self, queue_max: usize) -> Self {
        self.queue_max = queue_max.max(1);
        self
    }

    /// Sets the time for which writing is suspended after a failure.
    #[must_use]
    pub fn retry(mut self, retry: Duration) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the interval at which the folder is scanned.
    #[must_use]
    pub fn scan_interval(mut self, scan_interval: Duration) -> Self {
        self.scan_interval = scan_interval;
        self
    }

    /// Calls `listener` with every notice, on threads of the cache. It must not call the cache.
    #[must_use]
    pub fn on_notice(mut self, listener: impl Fn(&CacheNotice) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }
}

impl fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions")
            .field("folder", &self.folder)
            .field("bytes_max", &self.bytes_max)
            .field("age_max", &self.age_max)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
