//! Command line of the binary, for programs that include it in theirs.

mod admin;
mod args;
mod log;
mod serve;

pub use admin::{Audit, Key};
pub use args::Args;

use crate::config::{ConfigSource, EXAMPLE};
use args::{Command, ConfigCommand};
use std::error::Error;
use std::process::ExitCode;

/// Runs the command; without one, serves until a signal ends the server. A program whose configuration may
/// use worker processes calls [`run_if_worker`](crate::models::run_if_worker) first in its `main`.
///
/// # Errors
///
/// The configuration is invalid, a model cannot be loaded, an address cannot be bound, or a store cannot be
/// opened.
pub fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    match &args.command {
        Some(Command::Config { command: ConfigCommand::Example }) => print!("{EXAMPLE}"),
        Some(Command::Key(key)) => {
            let folder = args.source().load()?.access.data;
            let folder =
                folder.ok_or("the folder of the keys is needed: --data, or access.data in the file")?;
            crate::access::cli::run(key, &folder)?;
        }
        Some(Command::Audit { command }) => return Ok(crate::audit::command::run(command)),
        None if args.print_config => print!("{EXAMPLE}"),
        None if args.check_config => return Ok(check(&args.source())),
        None => serve::serve(args.source())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all problems of the configuration. The exit status is 1 if there are any.
fn check(source: &ConfigSource) -> ExitCode {
    let name = source.file().map_or("the configuration".into(), |file| file.display().to_string());
    match source.check() {
        Ok(_) => {
            println!("{name} is valid");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let problems = error.problems.len();
            eprintln!("{error}\n\n{problems} problem{} in {name}", if problems == 1 { "" } else { "s" });
            ExitCode::FAILURE
        }
    }
}
