//! The commands of the binary.

mod args;
mod log;
mod serve;

pub(crate) use args::Args;

use args::{Command, ConfigCommand};
use exsa_server::config::{ConfigSource, EXAMPLE};
use std::error::Error;
use std::process::ExitCode;

/// Runs the command; serves without one.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    match &args.command {
        Some(Command::Config { command: ConfigCommand::Example }) => print!("{EXAMPLE}"),
        Some(Command::Key(key)) => {
            let folder = args.source().load()?.access.data;
            let folder =
                folder.ok_or("the folder of the keys is needed: --data, or access.data in the file")?;
            exsa_server::access::cli::run(key, &folder)?;
        }
        Some(Command::Audit { command }) => return Ok(exsa_server::audit::command::run(command)),
        None if args.print_config => print!("{EXAMPLE}"),
        None if args.check_config => return Ok(check(&args.source())),
        None => serve::serve(args.source())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all problems of the configuration. The status is 1 if there are any.
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
