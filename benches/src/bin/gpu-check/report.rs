//! The report.

use exsa_benches::progress::say;
use serde_json::{Map, Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds that are left for further measurements.
#[derive(Clone, Copy, Debug)]
pub struct TimeLeft {
    start: Instant,
    all: Duration,
}

impl TimeLeft {
    /// Whether a further measurement may begin.
    pub fn is_left(self) -> bool {
        self.start.elapsed() < self.all
    }
}

/// Results, written after every part.
pub struct Report {
    path: PathBuf,
    time: TimeLeft,
    values: Map<String, Value>,
    failed: Vec<String>,
}

/// The result of a part: what was found, and whether all is as it should be.
pub struct Found {
    /// For the report.
    pub value: Value,
    /// Whether nothing failed.
    pub passed: bool,
}

impl Report {
    /// An empty report in `folder`.
    pub fn new(folder: &Path, seconds: u64) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let time = TimeLeft { start: Instant::now(), all: Duration::from_secs(seconds) };
        let path = folder.join("gpu-check.json");
        let mut report = Self { path, time, values: Map::new(), failed: Vec::new() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        report.set("unix_time", json!(now))?;
        report.set("version", json!(env!("CARGO_PKG_VERSION")))?;
        Ok(report)
    }

    /// Sets a value and writes the report.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        self.values.insert(name.to_owned(), value);
        let text = serde_json::to_string_pretty(&self.values).map_err(|error| error.to_string())?;
        std::fs::write(&self.path, text + "\n").map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Runs a part; its errors and panics are part of the report.
    pub fn part(
        &mut self,
        name: &str,
        run: impl FnOnce(TimeLeft) -> Result<Found, String>,
    ) -> Result<(), String> {
        say(format_args!("{name} ..."));
        let (start, time) = (Instant::now(), self.time);
        let found = catch_unwind(AssertUnwindSafe(|| run(time)))
            .unwrap_or_else(|_| Err("panicked; the message is on stderr".to_owned()));
        let found = found.unwrap_or_else(|error| Found { value: json!({ "error": error }), passed: false });
        let verdict = if found.passed { "passed" } else { "FAILED" };
        let seconds = start.elapsed().as_secs_f64();
        say(format_args!("{name}: {verdict}, {seconds:.1} s"));
        if !found.passed {
            self.failed.push(name.to_owned());
        }
        self.set(name, json!({ "passed": found.passed, "seconds": seconds, "found": found.value }))
    }

    /// The last write; whether all parts passed.
    pub fn finish(mut self) -> Result<bool, String> {
        let passed = self.failed.is_empty();
        let result = if passed { "passed".to_owned() } else { format!("failed: {}", self.failed.join(", ")) };
        say(format_args!("{result}; report: {}", self.path.display()));
        self.set("seconds", json!(self.time.start.elapsed().as_secs_f64()))?;
        self.set("result", json!(result))?;
        Ok(passed)
    }
}
