//! Measures any backend on any GGUF; `--help` says how. One JSON line per case on stdout.
#![forbid(unsafe_code)]

use clap::Parser;
use exsa_benches::error::BenchError;
use exsa_benches::options::Options;
use exsa_benches::progress::say;
use exsa_benches::{backends, threads, throughput};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version come this way too, and are no failure.
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, BenchError> {
    if let Some(code) = threads::restart(backends::thread_variables(&options.backend), options.threads())? {
        return Ok(code);
    }
    throughput::run(options, &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}
