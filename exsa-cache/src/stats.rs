//! Counters of a cache.

/// A snapshot of a cache's counters. Counters only increase; the first four fields are gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Number of entries.
    pub entries: usize,
    /// Bytes of the entries' files.
    pub bytes: u64,
    /// Pinned entries.
    pub pinned: usize,
    /// Whether writing is suspended after a failure.
    pub suspended: bool,
    /// Lookups.
    pub lookups: u64,
    /// Lookups with a result.
    pub hits: u64,
    /// Entries read.
    pub reads: u64,
    /// Bytes of these.
    pub read_bytes: u64,
    /// Reads that failed.
    pub read_failures: u64,
    /// Entries written.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Writes that failed.
    pub write_failures: u64,
    /// Entries evicted to make room.
    pub evicted: u64,
    /// Entries removed because of their age.
    pub expired: u64,
    /// Files removed because they were damaged, or refused by an engine.
    pub damaged: u64,
}
