//! Completion scripts and manual pages.

use crate::args::Args;
use crate::error::CliError;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// Prints a completion script.
#[expect(clippy::unnecessary_wraps, reason = "commands have one form")]
pub(crate) fn completions(shell: Shell) -> Result<(), CliError> {
    clap_complete::generate(shell, &mut Args::command(), "exsa", &mut std::io::stdout());
    Ok(())
}

/// Writes a manual page for the program and one for each command.
pub(crate) fn pages(folder: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(folder).map_err(|error| CliError::file(folder, error))?;
    clap_mangen::generate_to(Args::command(), folder).map_err(|error| CliError::file(folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn pages_are_written() {
        let folder = tempfile::tempdir().unwrap();
        pages(folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("exsa-run.1")).unwrap();
        assert!(page.contains("json\\-schema"), "{page}");
    }
}
