//! Status of a worker, for pools and people.

use super::cause::ExitCause;
use crate::sandbox::SandboxReport;
use std::fmt;

/// State of a worker.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WorkerState {
    /// The process loads its model, or is about to start; with the share that is loaded, from 0 to 1.
    Starting(f32),
    /// It takes requests.
    Ready,
    /// It takes no more requests, and those that it has go to their end.
    Stopping,
    /// It has ended on demand.
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

/// A worker's state, and facts about its process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Number of the worker.
    pub number: usize,
    /// Its state.
    pub state: WorkerState,
    /// Id of the process, if there is one.
    pub pid: Option<u32>,
    /// Processes started after the first.
    pub restarts: u64,
    /// The reason for which the last process ended.
    pub last_exit: Option<ExitCause>,
    /// Bytes of memory in use, shared pages included; 0 where it is not known.
    pub memory: u64,
    /// Bytes of these that are the process's own: without pages of files.
    pub memory_private: u64,
    /// The level of isolation reached; `None` before the process tells.
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
