//! Status of a worker.

use super::cause::ExitCause;
use crate::sandbox::SandboxReport;
use std::fmt;

/// State of a worker.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WorkerState {
    /// The process loads its model, or is about to start; with the loaded share from 0 to 1.
    Starting(f32),
    /// It accepts requests.
    Ready,
    /// It accepts no more requests, and its running ones finish.
    Stopping,
    /// It was stopped on request.
    Stopped,
    /// It was given up, for this reason.
    Failed(ExitCause),
}

impl WorkerState {
    /// Name of the state in snake case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting(_) => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting(share) => write!(f, "starting ({:.0} %)", share * 100.0),
            Self::Failed(cause) => write!(f, "failed: {cause}"),
            _ => f.write_str(self.name()),
        }
    }
}

/// State of a worker and its process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Number of the worker.
    pub number: usize,
    /// Its state.
    pub state: WorkerState,
    /// Process id, if there is a process.
    pub pid: Option<u32>,
    /// Number of processes started after the first.
    pub restarts: u64,
    /// Exit cause of the last process.
    pub last_exit: Option<ExitCause>,
    /// Resident memory in bytes, shared pages included; 0 if unknown.
    pub memory: u64,
    /// Private part of it in bytes, without file pages.
    pub memory_private: u64,
    /// The isolation level reached; `None` until the process reports it.
    pub sandbox: Option<SandboxReport>,
    /// Requests that have not ended.
    pub open: usize,
}

impl WorkerStatus {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            state: WorkerState::Starting(0.0),
            pid: None,
            restarts: 0,
            last_exit: None,
            memory: 0,
            memory_private: 0,
            sandbox: None,
            open: 0,
        }
    }
}
