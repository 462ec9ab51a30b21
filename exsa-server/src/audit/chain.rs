//! The hash chain: line numbers and hashes of previous lines.

use super::checkpoint::SignedCheckpoint;
use super::hash::Hash;
use super::record::Record;
use serde::Deserialize;
use std::time::SystemTime;

/// End of a chain: the number and the hash of its last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Number of the last line; 0 before the first.
    pub(super) count: u64,
    /// Hash of the last line.
    pub(super) last: Hash,
}

impl Chain {
    /// The chain of a new log.
    pub(super) const EMPTY: Self = Self { count: 0, last: Hash::ZERO };

    /// Appends the line of a record to `out`, with its newline.
    pub(super) fn append(&mut self, record: &Record, now: SystemTime, out: &mut Vec<u8>) {
        let begin = out.len();
        let (seq, time) = (self.count + 1, humantime::format_rfc3339_millis(now));
        out.extend_from_slice(format!(r#"{{"seq":{seq},"time":"{time}","prev":"{}","#, self.last).as_bytes());
        // Records are structs of numbers and strings, which can always be serialized; the JSON begins with a
        // brace.
        let facts = serde_json::to_string(record).unwrap_or_default();
        out.extend_from_slice(facts.as_bytes().get(1..).unwrap_or(b"}"));
        *self = Self { count: seq, last: Hash::of(&out[begin..]) };
        out.push(b'\n');
    }
}

/// The fields of a line that link it to its neighbours.
#[derive(Debug, Deserialize)]
pub(super) struct Link {
    /// Number of the line.
    pub(super) seq: u64,
    /// Time, RFC 3339.
    pub(super) time: String,
    /// Hash of the previous line.
    pub(super) prev: Hash,
    /// The checkpoint, if the line is one.
    #[serde(default)]
    pub(super) checkpoint: Option<SignedCheckpoint>,
}

impl Link {
    /// Reads a line without its newline.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}
