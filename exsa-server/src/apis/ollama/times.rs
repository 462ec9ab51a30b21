//! Times in the form of Ollama's API.

use std::time::{Duration, SystemTime};

/// Returns a duration in whole nanoseconds.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the current time in RFC 3339, in UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}
