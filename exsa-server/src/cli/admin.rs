//! Administrative commands, for programs that expose them at the top level of their command line.

use crate::access::cli::KeyArgs;
use crate::audit::command::AuditCommand;
use crate::config::ConfigSource;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Manages API keys, with a running server or without.
#[derive(Clone, Debug, clap::Args)]
pub struct Key {
    #[command(flatten)]
    key: KeyArgs,
    /// Configuration file of the server; its access.data is the folder of the keys
    #[arg(long, short, global = true, value_name = "FILE", env = "EXSA_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of the API keys
    #[arg(long, global = true, value_name = "FOLDER", env = "EXSA_DATA")]
    data: Option<PathBuf>,
}

impl Key {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// The configuration is invalid or names no folder, or the keys cannot be read or changed.
    pub fn run(&self) -> Result<(), Box<dyn Error>> {
        let folder = match &self.data {
            Some(folder) => Some(folder.clone()),
            None => ConfigSource::new(self.config.clone()).load()?.access.data,
        };
        let folder =
            folder.ok_or("the folder of the keys is needed: --data, or --config with access.data")?;
        crate::access::cli::run(&self.key, &folder)
    }
}

/// Verifies audit logs and creates keys for them.
#[derive(Clone, Debug, clap::Args)]
pub struct Audit {
    #[command(subcommand)]
    command: AuditCommand,
}

impl Audit {
    /// Runs the command. The exit code is 0 for an intact log, 1 with findings, 2 after an error.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        crate::audit::command::run(&self.command)
    }
}
