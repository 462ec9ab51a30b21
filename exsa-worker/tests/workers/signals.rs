//! Signals to worker processes.

use rustix::process::{Pid, Signal, kill_process};

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // The process may have ended.
    let _ = kill_process(pid, signal);
}

pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

pub fn stop(pid: u32) {
    send(pid, Signal::STOP);
}

/// Whether a process of this id runs.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended, and waits for its parent.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
