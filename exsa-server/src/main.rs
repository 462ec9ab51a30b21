//! The binary: reads the command line and runs its command.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    exsa_server::models::run_if_worker();
    match cli::run(&cli::Args::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("exsa-server: {error}");
            ExitCode::FAILURE
        }
    }
}
