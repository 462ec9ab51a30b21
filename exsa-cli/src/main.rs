//! The command `exsa`.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod doctor;
mod embed;
mod error;
mod manual;
mod model;
mod output;
mod preset;
mod quantize;
mod run;
mod settings;
mod show;
mod tokenize;

use args::{Args, Command};
use clap::Parser;
use error::CliError;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "server")]
    exsa_server::models::run_if_worker();
    match command(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                eprintln!("exsa: {error}");
            }
            error.code()
        }
    }
}

fn command(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Show(args) => show::show(&args),
        Command::Tokenize(args) => tokenize::tokenize(&args),
        Command::Embed(args) => embed::embed(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Quantize(args) => quantize::quantize(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        #[cfg(feature = "server")]
        Command::Serve(args) => match exsa_server::cli::run(&args) {
            Ok(code) if code == ExitCode::SUCCESS => Ok(()),
            Ok(_) => Err(CliError::Silent),
            Err(error) => Err(CliError::Other(error.to_string())),
        },
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder),
    }
}
