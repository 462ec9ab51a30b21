//! Exit causes of worker processes.

use crate::serve::{EXIT_LOAD, EXIT_PANICKED, EXIT_PROTOCOL};
use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// Cause of a worker process's exit, or of its failure to start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitCause {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// Killed because it made no progress for this time.
    Stalled(Duration),
    /// Killed because it sent no heartbeat for this time.
    Silent(Duration),
    /// Killed because loading made no progress for this time.
    StartTimeout(Duration),
    /// Killed because it exceeded its memory limit.
    Memory {
        /// Private memory in bytes.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// Killed because it broke the protocol.
    Protocol(String),
    /// It could not load its model.
    Load(String),
    /// Its backend panicked.
    Panicked,
    /// It could not be started.
    Spawn(String),
    /// Stopped by the host.
    Stopped,
}

impl ExitCause {
    /// Returns the cause for an exit status.
    pub(crate) fn of(status: ExitStatus) -> Self {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Self::Signal(signal);
        }
        match status.code() {
            Some(EXIT_PANICKED) => Self::Panicked,
            code => Self::Code(code.unwrap_or(-1)),
        }
    }

    /// Returns whether a restart cannot help: the model, the program or its version is wrong.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Load(_) | Self::Spawn(_) | Self::Code(EXIT_PROTOCOL | EXIT_LOAD))
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(EXIT_PROTOCOL) => f.write_str("exited, as it is of another version than its host"),
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Stalled(time) => {
                write!(f, "was ended, as it made no progress for {:.1} s", time.as_secs_f64())
            }
            Self::Silent(time) => {
                write!(f, "was ended, as it gave no sign of life for {:.1} s", time.as_secs_f64())
            }
            Self::StartTimeout(time) => {
                write!(f, "was ended, as loading made no progress for {:.1} s", time.as_secs_f64())
            }
            Self::Memory { used, limit } => {
                write!(f, "was ended, as it used {} MiB of memory of {} MiB", used >> 20, limit >> 20)
            }
            Self::Protocol(problem) => write!(f, "was ended, as it broke the protocol: {problem}"),
            Self::Load(reason) => write!(f, "could not load its model: {reason}"),
            Self::Panicked => f.write_str("ended, as its backend panicked"),
            Self::Spawn(reason) => write!(f, "could not be started: {reason}"),
            Self::Stopped => f.write_str("was stopped by its host"),
        }
    }
}
