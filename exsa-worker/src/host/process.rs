//! Starts and ends worker processes.

use super::cause::ExitCause;
use super::options::WorkerOptions;
use crate::frame::{Hello, ToWorker};
use crate::output::Output;
use crate::serve::ARGUMENT;
use crate::setup::Setup;
use crate::transport::{self, Closer, Receiver};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Environment variables that a worker inherits from its host.
const INHERITED: [&str; 7] =
    ["PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "RUST_LOG", "RUST_BACKTRACE"];

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    closer: Closer,
    pub(super) output: Arc<Output>,
    /// The cause, if the host has killed it.
    pub(super) killed: Option<ExitCause>,
    /// The exit cause, once it was observed.
    exited: Option<ExitCause>,
}

impl Process {
    /// Starts a worker and sends the greeting. Must be called on a thread that outlives it.
    pub(super) fn start(options: &WorkerOptions, setup: &Setup) -> Result<(Self, Receiver), String> {
        let json = serde_json::to_string(setup).map_err(|error| format!("its settings: {error}"))?;
        let mut command = command(options)?;
        command.arg(ARGUMENT).arg(std::process::id().to_string()).env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        let (child, receiver, sender, closer) =
            transport::spawn(&mut command).map_err(|error| error.to_string())?;
        let output = Arc::new(Output::default());
        let mut process = Self { child, closer, output, killed: None, exited: None };
        let writer = process.output.clone();
        let spawned =
            thread::Builder::new().name("exsa-to-worker".into()).spawn(move || writer.run(sender, || {}));
        let greeted = [ToWorker::Hello(Hello::new()), ToWorker::Setup(json)];
        let sent = greeted.iter().try_for_each(|message| process.output.send(message));
        let problem = match (spawned, sent) {
            (Err(error), _) => error.to_string(),
            (_, Err(error)) => error.to_string(),
            (Ok(_), Ok(())) => return Ok((process, receiver)),
        };
        process.kill(ExitCause::Spawn(problem.clone()));
        process.wait();
        Err(problem)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process; the first cause is kept.
    pub(super) fn kill(&mut self, cause: ExitCause) {
        self.killed.get_or_insert(cause);
        // It fails only if the process has already exited.
        let _ = self.child.kill();
    }

    /// Closes the connection, so that the receiver sees the end.
    pub(super) fn close(&self) {
        self.closer.close();
    }

    /// Returns whether the process has exited.
    pub(super) fn has_exited(&mut self) -> bool {
        if self.exited.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.exited = Some(ExitCause::of(status));
        }
        self.exited.is_some()
    }

    /// Waits for the exit, for at most `timeout`.
    pub(super) fn wait_timeout(&mut self, timeout: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(1);
        let mut left = timeout;
        while !self.has_exited() {
            if left.is_zero() {
                return false;
            }
            thread::sleep(LOOK);
            left = left.saturating_sub(LOOK);
        }
        true
    }

    /// Waits for the exit of a killed process.
    pub(super) fn wait(&mut self) {
        if self.exited.is_none() {
            // It fails only if another caller has reaped the process.
            self.exited = Some(self.child.wait().map_or(ExitCause::Code(-1), ExitCause::of));
        }
    }

    /// Returns the exit cause.
    pub(super) fn cause(&self) -> ExitCause {
        self.killed.clone().or_else(|| self.exited.clone()).unwrap_or(ExitCause::Code(-1))
    }
}

/// Returns the command to run.
fn command(options: &WorkerOptions) -> Result<Command, String> {
    if let Some(program) = &options.program {
        return Ok(Command::new(program));
    }
    let this = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    // The running program, even if its file has been replaced by another version.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(this);
        Ok(command)
    }
    #[cfg(not(target_os = "linux"))]
    Ok(Command::new(this))
}
