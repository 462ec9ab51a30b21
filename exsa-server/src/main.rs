//! The binary: reads the command line and runs its command.

use clap::Parser;
use exsa_server::cli;
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
