//! Measures any backends on any GGUF; `--help` says how. JSON lines on stdout.
#![forbid(unsafe_code)]

use clap::Parser;
use exsa_benches::error::BenchError;
use exsa_benches::options::Options;
use exsa_benches::progress::say;
use exsa_benches::{backends, footprint, threads, throughput};
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
    let out = &mut std::io::stdout();
    if options.memory && !options.alone {
        footprint::run(options, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let variables: Vec<_> =
        options.backend.iter().flat_map(|name| backends::thread_variables(name)).collect();
    if let Some(code) = threads::restart(&variables, options.threads())? {
        return Ok(code);
    }
    match options.alone {
        true => footprint::alone(options, out)?,
        false => throughput::run(options, out)?,
    }
    Ok(ExitCode::SUCCESS)
}
