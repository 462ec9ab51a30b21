//! Times as Ollama's API has them.

use std::time::{Duration, SystemTime};

/// A duration in whole nanoseconds.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The present as RFC 3339 has it, in UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}
