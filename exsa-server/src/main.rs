//! The binary: reads the command line and runs its command.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(&cli::Args::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("exsa-server: {error}");
            ExitCode::FAILURE
        }
    }
}
