//! Sends many users' requests to engines and servers; `--help` says how. JSON lines on stdout.
#![forbid(unsafe_code)]

use clap::Parser;
use exsa_benches::error::BenchError;
use exsa_benches::load::options::LoadGenOptions;
use exsa_benches::progress::say;
use exsa_benches::{backends, load, threads};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match LoadGenOptions::try_parse() {
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

fn run(options: &LoadGenOptions) -> Result<ExitCode, BenchError> {
    let variables: Vec<_> = options.engine.iter().flat_map(|name| backends::thread_variables(name)).collect();
    if let Some(code) = threads::restart(&variables, options.threads())? {
        return Ok(code);
    }
    load::run(options, &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}
