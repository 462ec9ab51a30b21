//! The command `exsa`.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod chunks;
mod doctor;
mod embed;
mod error;
mod hub;
mod imatrix;
mod interrupt;
mod list;
mod manual;
mod mcp;
mod model;
mod output;
mod perplexity;
mod preset;
mod pull;
mod quantize;
mod rm;
mod run;
#[cfg(feature = "server")]
mod serve;
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
        Command::Imatrix(args) => imatrix::imatrix(&args),
        Command::Perplexity(args) => perplexity::perplexity(&args),
        Command::Pull(args) => pull::pull(&args),
        Command::List(args) => list::list(&args),
        Command::Rm(args) => rm::rm(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::serve(*args),
        #[cfg(feature = "server")]
        Command::Key(args) => ended(args.run().map(|()| ExitCode::SUCCESS)),
        #[cfg(feature = "server")]
        Command::Audit(args) => ended(Ok(args.run())),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder),
    }
}

/// Converts the exit of a server command, which has already printed its error.
#[cfg(feature = "server")]
fn ended(result: Result<ExitCode, Box<dyn std::error::Error>>) -> Result<(), CliError> {
    match result {
        Ok(code) if code == ExitCode::SUCCESS => Ok(()),
        Ok(code) => Err(CliError::Exit(code)),
        Err(error) => Err(CliError::Other(error.to_string())),
    }
}
