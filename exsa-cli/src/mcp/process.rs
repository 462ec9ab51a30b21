//! Server process: bounded lines in both directions.

use super::{END_TIME, LINE_BYTES_MAX, command};
use crate::error::CliError;
use crate::output::visible;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that are buffered before the server is made to wait.
const LINES_AHEAD: usize = 16;

/// Bytes of the server's standard error that are kept to explain its exit.
const ERRORS_BYTES_MAX: usize = 2 << 10;

/// Poll interval for interrupts by the user.
const LOOK: Duration = Duration::from_millis(50);

/// Reason for a missing line.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The timeout has passed.
    Timeout,
    /// The user has interrupted.
    Interrupted,
    /// The server has exited, or is unusable from now on: the problem.
    Broken(String),
}

/// A running server.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    to: Option<Sender<String>>,
    from: Receiver<Result<Vec<u8>, String>>,
    errors: Arc<Mutex<Vec<u8>>>,
    /// Disconnected once standard error is at its end.
    errors_end: Receiver<()>,
    broken: Option<String>,
}

impl Process {
    /// Starts the program of a command line.
    pub(super) fn start(line: &str) -> Result<Self, CliError> {
        let words = command::words(line)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The hub's tokens are only for the hub; `env HF_TOKEN=... COMMAND` passes one on.
        command.env_remove("HF_TOKEN").env_remove("HUGGING_FACE_HUB_TOKEN");
        // Ctrl-C on the terminal stops an answer here, and must not stop the server.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let failed =
            |error: std::io::Error| CliError::Other(format!("--mcp: cannot start '{}': {error}", words[0]));
        let mut child = command.spawn().map_err(failed)?;
        let errors = Arc::<Mutex<Vec<u8>>>::default();
        let (to, lines_to) = channel();
        let (lines_from, from) = sync_channel(LINES_AHEAD);
        let (errors_last, errors_end) = channel::<()>();
        if let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        {
            let kept = errors.clone();
            thread::spawn(move || write_lines(stdin, &lines_to));
            thread::spawn(move || read_lines(stdout, &lines_from));
            thread::spawn(move || {
                keep_errors(stderr, &kept);
                drop(errors_last);
            });
        }
        Ok(Self { child, to: Some(to), from, errors, errors_end, broken: None })
    }

    /// Sends a line.
    pub(super) fn send(&mut self, line: String) -> Result<(), String> {
        if let Some(problem) = &self.broken {
            return Err(problem.clone());
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("a message of {} bytes; at most {LINE_BYTES_MAX} are allowed", line.len()));
        }
        // The next read reports a failure, and knows how the server exited.
        let _ = self.to.as_ref().is_some_and(|to| to.send(line).is_ok());
        Ok(())
    }

    /// Returns the next line, unless `end` passes or `stopped` returns true.
    pub(super) fn line(&mut self, end: Instant, stopped: &dyn Fn() -> bool) -> Result<Vec<u8>, NoLine> {
        if let Some(problem) = &self.broken {
            return Err(NoLine::Broken(problem.clone()));
        }
        loop {
            if stopped() {
                return Err(NoLine::Interrupted);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoLine::Timeout);
            }
            match self.from.recv_timeout(left.min(LOOK)) {
                Ok(Ok(line)) => return Ok(line),
                Ok(Err(problem)) => return Err(NoLine::Broken(self.give_up(problem))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let problem = self.end();
                    return Err(NoLine::Broken(self.give_up(problem)));
                }
            }
        }
    }

    /// Marks the server unusable, and adds its standard error to the problem.
    pub(super) fn give_up(&mut self, mut problem: String) -> String {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&errors);
        let last: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        if !last.is_empty() {
            let last: Vec<String> = last.iter().rev().map(|line| visible(line.trim())).collect();
            problem = format!("{problem}; it wrote: {}", last.join(" / "));
        }
        drop(errors);
        self.broken = Some(problem.clone());
        problem
    }

    /// Describes how the server exited, after it has closed its output.
    fn end(&mut self) -> String {
        match wait(&mut self.child, END_TIME) {
            Some(status) => {
                // The last errors may still be in the pipe.
                let _ = self.errors_end.recv_timeout(END_TIME);
                format!("it ended ({status})")
            }
            None => "it closed its output".to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closing its input asks a server to exit.
        self.to = None;
        if wait(&mut self.child, END_TIME).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits for a process to exit, for at most `time`.
fn wait(child: &mut Child, time: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + time;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
            _ => return None,
        }
    }
}

/// Writes lines until there are no more, or the server stops reading.
fn write_lines(mut stdin: ChildStdin, lines: &Receiver<String>) {
    for mut line in lines {
        line.push('\n');
        if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Reads lines until the end, an overlong line, or the end of the client.
fn read_lines(stdout: ChildStdout, lines: &SyncSender<Result<Vec<u8>, String>>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.len() > LINE_BYTES_MAX => {
                Err(format!("it sent a line of more than {LINE_BYTES_MAX} bytes, the limit"))
            }
            Ok(_) if line.iter().all(u8::is_ascii_whitespace) => continue,
            Ok(_) => Ok(line),
            Err(error) => Err(format!("cannot read its output: {error}")),
        };
        let last = line.is_err();
        if lines.send(line).is_err() || last {
            return;
        }
    }
}

/// Keeps the last bytes of the server's standard error.
fn keep_errors(mut stderr: ChildStderr, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(buffer.iter().take(count));
        let over = kept.len().saturating_sub(ERRORS_BYTES_MAX);
        kept.drain(..over);
    }
}
