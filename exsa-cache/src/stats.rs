//! Counters of a cache.

/// A snapshot of a cache's counters. Counters only grow; the first four are gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Entries.
    pub entries: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// Entries that are pinned.
    pub pinned: usize,
    /// Whether writing is suspended after a failure.
    pub suspended: bool,
    /// Lookups.
    pub lookups: u64,
    /// Lookups that found an entry.
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
    /// Entries removed for room.
    pub evicted: u64,
    /// Entries removed for their age.
    pub expired: u64,
    /// Files removed because they were damaged, or refused by an engine.
    pub damaged: u64,
}
