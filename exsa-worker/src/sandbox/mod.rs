//! Isolation of a worker process: resource limits, files and system calls.
//!
//! The worker applies it to itself, before it starts a thread and before it reads the model. Parts that the
//! kernel lacks are left out; the [`SandboxReport`] says which were applied.

#[cfg(target_os = "linux")]
mod files;
mod limits;
#[cfg(target_os = "linux")]
mod syscalls;

pub(crate) use limits::{die, die_with_parent, prepare};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Mode of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SandboxMode {
    /// Files and system calls are not restricted.
    Off,
    /// As far as the kernel supports it.
    #[default]
    BestEffort,
    /// The worker does not load its model unless both files and system calls are restricted.
    Required,
}

/// Settings of the sandbox.
///
/// The model with its packed file, and the parts of `/proc` and `/sys` that every program needs, are always
/// readable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SandboxOptions {
    /// Mode of the sandbox; [`SandboxMode::BestEffort`] by default.
    pub mode: SandboxMode,
    /// Additional files and folders that the worker may read, such as shared libraries that a backend loads
    /// later.
    pub read: Vec<PathBuf>,
    /// Folders that the worker may read and write, such as caches.
    pub write: Vec<PathBuf>,
}

impl SandboxOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Disables the sandbox.
    #[must_use]
    pub fn off() -> Self {
        Self::default().mode(SandboxMode::Off)
    }

    /// Sets the mode of the sandbox.
    #[must_use]
    pub fn mode(mut self, mode: SandboxMode) -> Self {
        self.mode = mode;
        self
    }

    /// Adds a file or folder that may be read.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// Adds a folder that may be read and written.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }
}

/// The isolation level that a worker reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxReport {
    /// Whether other files than the given ones cannot be opened (landlock).
    pub files: bool,
    /// Whether system calls that a worker does not need fail: sockets, programs, processes and others
    /// (seccomp).
    pub system_calls: bool,
    /// Whether the worker ends with the process that started it, even if that is killed.
    pub ends_with_host: bool,
    /// Missing parts, with the reason.
    pub missing: Vec<String>,
}

impl SandboxReport {
    /// Returns whether both files and system calls are restricted.
    pub fn is_complete(&self) -> bool {
        self.files && self.system_calls
    }
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.files, self.system_calls) {
            (true, true) => "files and system calls",
            (true, false) => "files",
            (false, true) => "system calls",
            (false, false) => "none",
        })?;
        match self.missing.as_slice() {
            [] => Ok(()),
            missing => write!(f, " ({})", missing.join("; ")),
        }
    }
}

/// Restricts this process. Must be called while it has one thread. `model` stays readable, and so does its
/// packed file `packed`, if it exists.
pub(crate) fn enter(
    options: &SandboxOptions,
    model: Option<&Path>,
    packed: Option<&Path>,
    report: &mut SandboxReport,
) {
    if options.mode == SandboxMode::Off {
        report.missing.push("the sandbox is off".into());
        return;
    }
    #[cfg(target_os = "linux")]
    {
        let threads = std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count());
        if threads > 1 {
            report.missing.push(format!("files: {threads} threads ran before run_if_worker was called"));
        } else {
            match files::restrict(options, model, packed) {
                Ok(()) => report.files = true,
                Err(reason) => report.missing.push(format!("files: {reason}")),
            }
        }
        match syscalls::restrict() {
            Ok(()) => report.system_calls = true,
            Err(reason) => report.missing.push(format!("system calls: {reason}")),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (model, packed);
        report.missing.push("files and system calls: only on Linux".into());
    }
}
