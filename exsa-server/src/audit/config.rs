//! The section `[audit]` of the configuration.

use super::checkpoint::SigningKey;
use super::destination::Destination;
use super::handle::AuditError;
use super::log::Fsync;
use super::units;
use crate::config::Problems;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Behaviour if the log cannot be written or its queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnError {
    /// Requests are answered with 503 before any work.
    #[default]
    Refuse,
    /// Requests are served; lines that find no space are counted, and the count is written later.
    Continue,
}

/// The section `[audit]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AuditConfig {
    /// Folder of the log's files, created if missing. Without it there is no log.
    pub folder: Option<PathBuf>,
    /// Name of the log in checkpoints.
    pub name: String,
    /// Whether prompts and answers are logged.
    pub content: bool,
    /// Maximum bytes of a prompt or an answer in a line; 64 KiB by default.
    #[serde(with = "crate::config::units::size")]
    pub content_bytes_max: usize,
    /// File length from which the next file is begun; 64 MiB by default.
    #[serde(with = "crate::config::units::size")]
    pub rotate_bytes: u64,
    /// File age from which the next file is begun, or `never`; a day by default.
    #[serde(with = "units::optional_duration")]
    pub rotate_age: Option<Duration>,
    /// `every`, `never`, or the interval at which lines are synced; `every` by default.
    #[serde(with = "units::fsync")]
    pub fsync: Fsync,
    /// Behaviour if the log cannot be written.
    pub on_error: OnError,
    /// Maximum pending lines, including those of running requests; 4,096 by default.
    pub queue: usize,
    /// Maximum bytes of lines kept in memory while the log cannot be written; 16 MiB by default.
    #[serde(with = "crate::config::units::size")]
    pub pending_max: usize,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            folder: None,
            name: "exsa-server".into(),
            content: false,
            content_bytes_max: 64 << 10,
            rotate_bytes: 64 << 20,
            rotate_age: Some(Duration::from_secs(24 * 60 * 60)),
            fsync: Fsync::Every,
            on_error: OnError::Refuse,
            queue: 4096,
            pending_max: 16 << 20,
            checkpoint: CheckpointConfig::default(),
        }
    }
}

/// Checkpoints of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CheckpointConfig {
    /// Lines between checkpoints; 1,000 by default.
    pub lines: u64,
    /// Time after which a checkpoint is written if there were lines; a minute by default.
    #[serde(with = "crate::config::units::duration")]
    pub interval: Duration,
    /// File of the Ed25519 key that signs checkpoints, in PKCS#8; `exsa-server audit keygen` creates one.
    pub key: Option<PathBuf>,
    /// File to which checkpoints are also written; best on another machine's file system.
    pub file: Option<PathBuf>,
    /// Whether checkpoints are also written to standard output.
    pub stdout: bool,
    /// System log socket to which checkpoints are also written, usually `/dev/log`.
    pub syslog: Option<PathBuf>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        let interval = Duration::from_secs(60);
        Self { lines: 1000, interval, key: None, file: None, stdout: false, syslog: None }
    }
}

impl AuditConfig {
    /// Sets the folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets whether prompts and answers are logged.
    #[must_use]
    pub fn content(mut self, content: bool) -> Self {
        self.content = content;
        self
    }

    /// Sets the durability policy.
    #[must_use]
    pub fn fsync(mut self, fsync: Fsync) -> Self {
        self.fsync = fsync;
        self
    }

    /// Sets the behaviour if the log cannot be written.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Sets the checkpoints.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: CheckpointConfig) -> Self {
        self.checkpoint = checkpoint;
        self
    }

    /// Finds an invalid value: its setting in the section, and the error with the allowed range.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let name = self.name.as_bytes();
        if name.is_empty() || name.len() > 64 || !name.iter().all(u8::is_ascii_graphic) {
            return Err((
                "name",
                format!("'{}' is not 1 to 64 visible ASCII characters", self.name.escape_default()),
            ));
        }
        let sizes = [
            ("queue", self.queue as u64, 1, 1 << 20),
            ("content_bytes_max", self.content_bytes_max as u64, 0, 1 << 20),
            ("rotate_bytes", self.rotate_bytes, 4096, 1 << 40),
            ("pending_max", self.pending_max as u64, 1 << 16, 1 << 30),
            ("checkpoint.lines", self.checkpoint.lines, 1, 1 << 32),
        ];
        for (setting, value, min, max) in sizes {
            if !(min..=max).contains(&value) {
                return Err((setting, format!("{value} is not between {min} and {max}")));
            }
        }
        let fsync = match self.fsync {
            Fsync::Interval(interval) => Some(interval),
            _ => None,
        };
        let interval = Some(self.checkpoint.interval);
        for (setting, duration) in
            [("checkpoint.interval", interval), ("rotate_age", self.rotate_age), ("fsync", fsync)]
        {
            let allowed = Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 60 * 60);
            if duration.is_some_and(|duration| !allowed.contains(&duration)) {
                return Err((setting, "allowed is \"1ms\" to \"365days\"".into()));
            }
        }
        Ok(())
    }

    /// Reports invalid values.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if let Err((setting, problem)) = self.check() {
            problems.add(format!("audit.{setting}"), problem);
        }
    }
}

impl CheckpointConfig {
    /// Sets the file of the key.
    #[must_use]
    pub fn key(mut self, file: impl Into<PathBuf>) -> Self {
        self.key = Some(file.into());
        self
    }

    /// Sets the file to which checkpoints are also written.
    #[must_use]
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Sets the lines between checkpoints.
    #[must_use]
    pub fn lines(mut self, lines: u64) -> Self {
        self.lines = lines;
        self
    }

    pub(super) fn read_key(&self) -> Result<Option<SigningKey>, AuditError> {
        let Some(path) = &self.key else { return Ok(None) };
        let bytes = fs::read(path).map_err(|error| at("key", path, error))?;
        SigningKey::read(&bytes).map(Some).map_err(|error| at("key", path, error))
    }

    pub(super) fn destinations(&self) -> Result<Vec<Destination>, AuditError> {
        let mut destinations = Vec::new();
        if let Some(path) = &self.file {
            destinations.push(Destination::file(path).map_err(|error| at("file", path, error))?);
        }
        if self.stdout {
            destinations.push(Destination::Stdout);
        }
        if let Some(path) = &self.syslog {
            destinations.push(Destination::syslog(path).map_err(|error| at("syslog", path, error))?);
        }
        Ok(destinations)
    }
}

fn at(field: &str, path: &Path, error: impl std::fmt::Display) -> AuditError {
    AuditError(format!("audit.checkpoint.{field}: {}: {error}", path.display()).into())
}
