//! Threads of backends whose libraries decide on them by environment variables.

use crate::error::BenchError;
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};

/// Starts this program again with `variables` set to `threads` and waits for its end, unless they are set so
/// already.
///
/// A program cannot soundly change its own environment once it has threads. So the one way to choose is to
/// start another process.
pub fn restart(variables: &[&&'static str], threads: NonZeroUsize) -> Result<Option<ExitCode>, BenchError> {
    let wanted = threads.to_string();
    let Some(variable) = variables.iter().find(|name| std::env::var(name).ok().as_ref() != Some(&wanted))
    else {
        return Ok(None);
    };
    let program = std::env::current_exe().map_err(|source| BenchError::Restart {
        program: "this program".into(),
        variable,
        source,
    })?;
    let status = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .envs(variables.iter().map(|name| (name, &wanted)))
        .status()
        .map_err(|source| BenchError::Restart { program, variable, source })?;
    Ok(Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}
