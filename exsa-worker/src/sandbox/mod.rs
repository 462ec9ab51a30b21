//! Isolation of a worker process: limits, files and system calls.
//!
//! Applied by the worker itself, before it starts a thread and before it reads the model. A kernel that lacks
//! a part leaves that part out; the [`SandboxReport`] says which were reached.

#[cfg(target_os = "linux")]
mod files;
mod limits;
#[cfg(target_os = "linux")]
mod syscalls;

pub(crate) use limits::{die, die_with_parent, prepare};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Whether a worker shuts itself in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SandboxMode {
    /// No restriction of files and system calls.
    Off,
    /// As far as the kernel allows it.
    #[default]
    BestEffort,
    /// A worker that cannot restrict both files and system calls does not load its model.
    Required,
}

/// Settings of the sandbox.
///
/// The model with its packed file, and what every program needs of `/proc` and `/sys`, can be read in any
/// case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SandboxOptions {
    /// Whether the worker shuts itself in; [`SandboxMode::BestEffort`] by default.
    pub mode: SandboxMode,
    /// Further files and folders that the worker may read, such as those of shared libraries that a backend
    /// loads later.
    pub read: Vec<PathBuf>,
    /// Folders in which the worker may read and write: caches.
    pub write: Vec<PathBuf>,
}

impl SandboxOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No sandbox.
    #[must_use]
    pub fn off() -> Self {
        Self::default().mode(SandboxMode::Off)
    }

    /// Sets whether the worker shuts itself in.
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

/// The level of isolation that a worker reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxReport {
    /// Files beyond those handed over cannot be opened (landlock).
    pub files: bool,
    /// System calls that a worker has no use for fail: sockets, programs, processes and others (seccomp).
    pub system_calls: bool,
    /// The worker ends with the process that started it, even if that is killed.
    pub ends_with_host: bool,
    /// Parts that are missing, and the reason.
    pub missing: Vec<String>,
}

impl SandboxReport {
    /// Whether both files and system calls are restricted.
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

/// Restricts this process. Must be called while it has one thread. `model` can be read, and `packed`, its
/// packed file, where it is there.
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
